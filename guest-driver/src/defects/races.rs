//! Bugs that show only when device, DPC or another thread comes at the wrong
//! moment; the order that is usual never shows them.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::raw;
use super::{Defect, is_chosen, is_fixed, shows};
use crate::callbacks::Callbacks;
use crate::memory::{Contiguous, Pages};
use crate::nt::{KeWaitForSingleObject, ObfDereferenceObject, Result, ZwClose, check, log};
use crate::queue::{Body, Queue, SYNCHRONOUS};
use crate::spec::gpu::{CMD_GET_DISPLAY_INFO, Header};
use crate::spec::nt::{Handle, KERNEL_MODE};
use crate::sync::{Event, SpinLock};

/// StartDevice is over.
pub fn started(callbacks: &Callbacks, queue: &Queue) -> Result<()> {
    if is_chosen(Defect::ExclusiveInFlight) {
        ask_again(queue);
    }
    if is_chosen(Defect::FreedByTwoThreads) {
        start_worker(callbacks)?;
    }
    Ok(())
}

/// StopDevice begins.
pub fn stopping(callbacks: &Callbacks) {
    if is_chosen(Defect::FreedByTwoThreads) {
        take_back(callbacks);
        stop_worker();
    }
}

/// The DPC took the completions of the control queue.
pub fn completed(queue: &Queue) {
    if is_chosen(Defect::StaleSignal) {
        queue.signal_completed();
    } else if is_chosen(Defect::ResizeRacesDpc) {
        stamp(queue);
    } else if is_chosen(Defect::ExclusiveInFlight) && queue.is_idle(SYNCHRONOUS) {
        BUSY.store(false, Ordering::Relaxed);
    }
}

// --- exclusive-in-flight ---

/// Something was sent since the DPC last found nothing outstanding.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Asks for the displays twice, without waiting for the answers: the first
/// time for their number, the second time for their sizes.
#[inline(never)]
fn ask_again(queue: &Queue) {
    let mut command = [0; size_of::<Header>()];
    command[..4].copy_from_slice(&CMD_GET_DISPLAY_INFO.to_le_bytes());
    for time in 0..2 {
        // The planted bug: a DPC between this and the command finds nothing
        // outstanding, and the command is then sent with the flag clear.
        BUSY.store(true, Ordering::Relaxed);
        log!("asking for the displays, %u", time);
        let _ = queue.submit(SYNCHRONOUS, [Body::Inline(&command)]);
    }
}

/// BeginExclusiveAccess: is there nothing to wait for, and no reset needed?
pub fn believes_idle() -> bool {
    shows(Defect::ExclusiveInFlight) && !BUSY.load(Ordering::Relaxed)
}

// --- resize-races-dpc ---

/// Where the DPC notes that a frame was shown, and which group it belongs to.
static STAMP: AtomicPtr<u64> = AtomicPtr::new(ptr::null_mut());
static STAMPED: AtomicUsize = AtomicUsize::new(0);
/// Offset in a frame's command block, behind its commands.
const STAMP_AT: usize = 2048;

/// The frame of `group` is to be stamped once it is shown.
pub fn stamp_later(block: Option<&Contiguous>, group: usize) {
    if is_chosen(Defect::ResizeRacesDpc)
        && let Some(block) = block
    {
        STAMPED.store(group, Ordering::Relaxed);
        let place = block.base.wrapping_add(STAMP_AT).cast();
        STAMP.store(place, Ordering::Relaxed);
    }
}

#[inline(never)]
fn stamp(queue: &Queue) {
    let place = STAMP.load(Ordering::Relaxed);
    if !place.is_null() && queue.is_idle(STAMPED.load(Ordering::Relaxed)) {
        STAMP.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: a frame's command block, or a planted bug.
        unsafe { place.write_volatile(1) }
    }
}

/// Whether a resize may give back the old frame's command block. The planted
/// bug: the device is done with it, the DPC may not be.
pub fn is_block_unused(queue: &Queue, group: usize) -> bool {
    if is_fixed(Defect::ResizeRacesDpc) {
        queue.is_idle(group)
    } else {
        queue.is_device_done(group)
    }
}

// --- freed-by-two-threads ---

/// Pages that wait for the worker.
static WAITING: SpinLock<Option<Pages>> = SpinLock::new(None);
/// There are such, or the worker is to end.
static WORK: Event = Event::new();
static END: AtomicBool = AtomicBool::new(false);
/// The worker's object.
static WORKER: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static CALLBACKS: SpinLock<Option<Callbacks>> = SpinLock::new(None);

/// Leaves unmapped pages that the device let go of to the worker.
#[inline(never)]
pub fn free_later(callbacks: &Callbacks, pages: Pages) {
    // Those that are left from before make room.
    take_back(callbacks);
    *WAITING.lock() = Some(pages);
    WORK.set();
}

/// Frees what waits. The planted bug: the slot is looked at under its lock,
/// and emptied under its lock, but another thread may look in between.
#[inline(never)]
fn take_back(callbacks: &Callbacks) {
    if is_fixed(Defect::FreedByTwoThreads) {
        let pages = WAITING.lock().take();
        if let Some(pages) = pages {
            let _ = pages.release(callbacks);
        }
        return;
    }
    let pages = *WAITING.lock();
    if let Some(pages) = pages {
        let _ = pages.release(callbacks);
        *WAITING.lock() = None;
    }
}

extern "system" fn work(_context: *mut c_void) {
    let callbacks = *CALLBACKS.lock();
    loop {
        WORK.wait(None);
        WORK.clear();
        if END.load(Ordering::Acquire) {
            break;
        }
        if let Some(callbacks) = &callbacks {
            take_back(callbacks);
        }
    }
}

#[inline(never)]
fn start_worker(callbacks: &Callbacks) -> Result<()> {
    *CALLBACKS.lock() = Some(*callbacks);
    WORK.init_notification(false);
    let mut handle: Handle = ptr::null_mut();
    check(raw::create_thread(
        &raw mut handle,
        raw::THREAD_ALL_ACCESS,
        ptr::null_mut(),
        ptr::null_mut(),
        ptr::null_mut(),
        work,
        ptr::null_mut(),
    ))?;
    let mut object = ptr::null_mut();
    let status = raw::reference_by_handle(
        handle,
        raw::THREAD_ALL_ACCESS,
        ptr::null_mut(),
        KERNEL_MODE,
        &raw mut object,
        ptr::null_mut(),
    );
    // SAFETY: opened above, closed once.
    let _ = unsafe { ZwClose(handle) };
    check(status)?;
    WORKER.store(object, Ordering::Release);
    Ok(())
}

#[inline(never)]
fn stop_worker() {
    let worker = WORKER.swap(ptr::null_mut(), Ordering::Acquire);
    if worker.is_null() {
        return;
    }
    END.store(true, Ordering::Release);
    WORK.set();
    // SAFETY: a thread's object, on which we have a reference.
    unsafe {
        let _ = KeWaitForSingleObject(worker, 0, KERNEL_MODE, 0, ptr::null());
        ObfDereferenceObject(worker);
    }
}
