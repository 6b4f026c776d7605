//! The image `dmasan-gpu.sys`: its entry point and what the compiler expects
//! of a freestanding program.
#![no_std]
#![no_main]

use dmasan_gpu::{nt, registration, spec::nt::UnicodeString};

/// Tells the compiler's floating-point startup that there is none; every
/// object for this target refers to it.
#[unsafe(no_mangle)]
#[used]
pub static _fltused: i32 = 0;

/// Called by the I/O manager when the image is loaded, at PASSIVE_LEVEL.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "system" fn DriverEntry(
    driver: *mut core::ffi::c_void,
    registry_path: *mut UnicodeString,
) -> i32 {
    // Not as a tail call: a stack shows where it began.
    core::hint::black_box(registration::register(driver, registry_path))
}

/// The code is written not to panic; should it, the machine must stop rather
/// than go on with a device in an unknown state.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let line = info.location().map_or(0, core::panic::Location::line);
    nt::bug_check(line)
}
