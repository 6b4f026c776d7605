//! Drivers that misuse what Windows gives them: timers, threads, callbacks,
//! device memory. Each must end with a report that names what happened.
#![allow(clippy::unwrap_used)]

mod support;

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, *};
use support::assembler::{AMPLE, BRIEF, call_import, run_with};

/// KUSER_SHARED_DATA.
const SHARED: u64 = 0xFFFF_F780_0000_0000;
/// The handle that dxgkrnl gives an adapter.
const ADAPTER: u64 = 0xFFFF_C00F_0000_1000;
/// Where `DxgkCbGetDeviceInformation` says that the first BAR is.
const FIRST_BAR: u64 = 0xFFFF_F800_0400_3018;

/// KeInitializeTimer(Timer), then `KeSetTimerEx(Timer, due, period, NULL)`;
/// the timer is at RSP+0x40.
fn set_timer(a: &mut CodeAssembler, due: i64, period: u32) -> Result<(), IcedError> {
    a.lea(rcx, ptr(rsp + 0x40))?;
    call_import(a, 0)?;
    a.lea(rcx, ptr(rsp + 0x40))?;
    a.mov(rdx, due)?;
    a.mov(r8d, period)?;
    a.xor(r9d, r9d)?;
    call_import(a, 1)
}

/// KeInitializeEvent of an event at an offset from RSP.
fn make_event(a: &mut CodeAssembler, at: i32, import: usize) -> Result<(), IcedError> {
    a.lea(rcx, ptr(rsp + at))?;
    a.xor(edx, edx)?;
    a.xor(r8d, r8d)?;
    call_import(a, import)
}

/// KeWaitForSingleObject, without a timeout, of an object at an offset from
/// RSP.
fn wait(a: &mut CodeAssembler, at: i32, import: usize) -> Result<(), IcedError> {
    a.lea(rcx, ptr(rsp + at))?;
    a.xor(edx, edx)?;
    a.xor(r8d, r8d)?;
    a.xor(r9d, r9d)?;
    a.mov(qword_ptr(rsp + 0x20), 0)?;
    call_import(a, import)
}

/// PsCreateSystemThread: its handle at RSP+0x40, its context RSP+0x60.
fn start_thread(a: &mut CodeAssembler, start: CodeLabel, import: usize) -> Result<(), IcedError> {
    a.lea(rcx, ptr(rsp + 0x40))?;
    a.mov(edx, 0x001F_FFFF)?;
    a.xor(r8d, r8d)?;
    a.xor(r9d, r9d)?;
    a.mov(qword_ptr(rsp + 0x20), 0)?;
    a.lea(rax, ptr(start))?;
    a.mov(qword_ptr(rsp + 0x28), rax)?;
    a.lea(rax, ptr(rsp + 0x60))?;
    a.mov(qword_ptr(rsp + 0x30), rax)?;
    call_import(a, import)
}

#[test]
fn a_wait_beside_a_periodic_timer_is_a_hang_at_the_timeout() {
    let imports = [
        "KeInitializeTimer",
        "KeSetTimerEx",
        "KeInitializeEvent",
        "KeWaitForSingleObject",
    ];
    run_with(&imports, BRIEF, |a| {
        a.sub(rsp, 0x108)?;
        set_timer(a, -10, 1)?;
        make_event(a, 0xC0, 2)?;
        wait(a, 0xC0, 3)
    })
    .says(1, &["hang"]);
}

#[test]
fn a_timer_that_came_due_before_the_wait_ends_it() {
    let imports = [
        "KeInitializeTimer",
        "KeSetTimerEx",
        "KeStallExecutionProcessor",
        "KeWaitForSingleObject",
    ];
    run_with(&imports, AMPLE, |a| {
        a.sub(rsp, 0x108)?;
        set_timer(a, -10, 0)?;
        a.mov(ecx, 100)?;
        call_import(a, 2)?;
        wait(a, 0x40, 3)?;
        a.add(rsp, 0x108)?;
        a.ret()
    })
    .says(0, &[]);
}

#[test]
fn text_without_end_is_cut() {
    run_with(&["DbgPrint"], AMPLE, |a| {
        // "%9s%9s%9s..." on the stack, then a format that never ends.
        a.sub(rsp, 0x1008)?;
        a.mov(rdi, rsp)?;
        a.add(rdi, 0x100)?;
        a.mov(eax, 0x6439_3925)?; // %99d
        a.mov(ecx, 0x300)?;
        a.rep().stosd()?;
        a.lea(rcx, ptr(rsp + 0x100))?;
        call_import(a, 0)?;
        a.add(rsp, 0x1008)?;
        a.xor(eax, eax)?;
        a.ret()
    })
    .says(0, &[]);
}

#[test]
fn callbacks_nested_without_end_are_a_stack_that_ends() {
    run_with(&["DxgkCbSynchronizeExecution"], AMPLE, |a| {
        let mut top = a.create_label();
        a.mov(rbx, rsp)?;
        a.set_label(&mut top)?;
        // Each level on the same stack: only their number can end it.
        a.mov(rsp, 0xFFFF_BE00_0000_6000u64)?;
        a.mov(rcx, ADAPTER)?;
        a.lea(rdx, ptr(top))?;
        a.xor(r8d, r8d)?;
        a.xor(r9d, r9d)?;
        a.mov(qword_ptr(rsp + 0x20), 0)?;
        call_import(a, 0)
    })
    .says(1, &["0x7F "]);
}

#[test]
fn a_callbacks_result_that_leads_nowhere_is_told() {
    run_with(&["DxgkCbSynchronizeExecution"], AMPLE, |a| {
        let mut routine = a.create_label();
        a.sub(rsp, 0x48)?;
        a.mov(rcx, ADAPTER)?;
        a.lea(rdx, ptr(routine))?;
        a.mov(qword_ptr(rsp + 0x20), 0x1000)?;
        call_import(a, 0)?;
        a.set_label(&mut routine)?;
        a.xor(eax, eax)?;
        a.ret()
    })
    .says(1, &["0x50 "]);
}

/// The first BAR mapped, its address in RBX; imports 0 and 1.
const MAPPING: [&str; 2] = ["DxgkCbGetDeviceInformation", "DxgkCbMapMemory"];

fn map_bar(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.sub(rsp, 0x108)?;
    a.mov(rcx, ADAPTER)?;
    a.lea(rdx, ptr(rsp + 0x60))?;
    call_import(a, 0)?;
    a.mov(rcx, ADAPTER)?;
    a.mov(rax, FIRST_BAR)?;
    a.mov(rdx, qword_ptr(rax))?;
    a.mov(r8d, dword_ptr(rax + 8))?;
    a.xor(r9d, r9d)?;
    a.mov(qword_ptr(rsp + 0x20), 0)?;
    a.mov(qword_ptr(rsp + 0x28), 0)?;
    a.lea(rax, ptr(rsp + 0x40))?;
    a.mov(qword_ptr(rsp + 0x30), rax)?;
    call_import(a, 1)?;
    a.mov(rbx, qword_ptr(rsp + 0x40))
}

#[test]
fn strings_of_device_registers_end_where_the_bar_does() {
    type String = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let strings: [String; 6] = [
        |a| a.rep().lodsb(),
        |a| a.rep().lodsq(),
        |a| a.rep().stosd(),
        |a| a.rep().movsb(),
        |a| a.repne().scasb(),
        |a| a.repe().cmpsq(),
    ];
    for (index, string) in strings.iter().enumerate() {
        let ran = run_with(&MAPPING, AMPLE, |a| {
            map_bar(a)?;
            a.mov(rsi, rbx)?;
            a.mov(rdi, rbx)?;
            a.mov(rcx, -1i64)?;
            a.xor(eax, eax)?;
            string(a)?;
            a.int3()
        });
        assert!(matches!(ran.code, Some(1 | 3)), "{index}: {}", ran.text);
        assert!(!ran.text.contains("panicked"), "{index}: {}", ran.text);
    }
}

#[test]
fn device_registers_copied_to_where_nothing_is_mapped_are_told() {
    for target in [0u64, SHARED, 0xFFFF_F800_1000_1FFC] {
        let ran = run_with(&MAPPING, AMPLE, |a| {
            map_bar(a)?;
            a.mov(rsi, rbx)?;
            a.mov(rdi, target)?;
            a.mov(ecx, 64)?;
            a.rep().movsb()?;
            a.int3()
        });
        assert!(matches!(ran.code, Some(1 | 3)), "{target:#x}: {}", ran.text);
        assert!(!ran.text.contains("panicked"), "{}", ran.text);
    }
}

#[test]
fn code_and_stack_in_device_registers_are_told() {
    let jump = run_with(&MAPPING, AMPLE, |a| {
        map_bar(a)?;
        a.jmp(rbx)
    });
    jump.says(1, &["0xFC "]);
    let stack = run_with(&MAPPING, AMPLE, |a| {
        map_bar(a)?;
        a.lea(rsp, ptr(rbx + 0x100))?;
        call_import(a, 0)
    });
    assert!(matches!(stack.code, Some(1 | 3)), "{}", stack.text);
}

#[test]
fn threads_that_end_make_room_for_others() {
    // 400 threads, one after another, each waited for.
    let imports = [
        "PsCreateSystemThread",
        "ObReferenceObjectByHandle",
        "KeWaitForSingleObject",
        "ObfDereferenceObject",
        "ZwClose",
    ];
    run_with(&imports, AMPLE, |a| {
        let (mut top, mut routine) = (a.create_label(), a.create_label());
        a.push(rbx)?;
        a.sub(rsp, 0x60)?;
        a.mov(ebx, 400)?;
        a.set_label(&mut top)?;
        start_thread(a, routine, 0)?;
        let mut out = a.create_label();
        a.test(eax, eax)?;
        a.jne(out)?;
        a.mov(rcx, qword_ptr(rsp + 0x40))?;
        a.mov(edx, 0x001F_FFFF)?;
        a.xor(r8d, r8d)?;
        a.xor(r9d, r9d)?;
        a.lea(rax, ptr(rsp + 0x48))?;
        a.mov(qword_ptr(rsp + 0x20), rax)?;
        a.mov(qword_ptr(rsp + 0x28), 0)?;
        call_import(a, 1)?;
        a.mov(rcx, qword_ptr(rsp + 0x48))?;
        a.xor(edx, edx)?;
        a.xor(r8d, r8d)?;
        a.xor(r9d, r9d)?;
        a.mov(qword_ptr(rsp + 0x20), 0)?;
        call_import(a, 2)?;
        a.mov(rcx, qword_ptr(rsp + 0x48))?;
        call_import(a, 3)?;
        a.mov(rcx, qword_ptr(rsp + 0x40))?;
        call_import(a, 4)?;
        a.dec(ebx)?;
        a.jne(top)?;
        a.xor(eax, eax)?;
        a.set_label(&mut out)?;
        a.add(rsp, 0x60)?;
        a.pop(rbx)?;
        a.ret()?;
        a.set_label(&mut routine)?;
        a.ret()
    })
    .says(0, &[]);
}

#[test]
fn a_thread_that_waits_at_apc_level_does_not_raise_another() {
    let imports = [
        "KeInitializeEvent",
        "PsCreateSystemThread",
        "KfRaiseIrql",
        "KeWaitForSingleObject",
        "KeLowerIrql",
        "KeSetEvent",
        "PsTerminateSystemThread",
    ];
    run_with(&imports, AMPLE, |a| {
        let mut routine = a.create_label();
        a.sub(rsp, 0x88)?;
        make_event(a, 0x60, 0)?;
        start_thread(a, routine, 1)?;
        a.mov(ecx, 1)?;
        call_import(a, 2)?;
        wait(a, 0x60, 3)?;
        a.xor(ecx, ecx)?;
        call_import(a, 4)?;
        a.xor(eax, eax)?;
        a.add(rsp, 0x88)?;
        a.ret()?;
        // KeSetEvent(Context, 0, FALSE), and what only PASSIVE_LEVEL may do.
        a.set_label(&mut routine)?;
        a.sub(rsp, 0x28)?;
        a.xor(edx, edx)?;
        a.xor(r8d, r8d)?;
        call_import(a, 5)?;
        a.xor(ecx, ecx)?;
        call_import(a, 6)
    })
    .says(0, &[]);
}

/// DriverUnload of the DRIVER_OBJECT in RCX becomes a routine that only
/// returns, placed behind what `entry` assembles.
fn unloadable(
    a: &mut CodeAssembler,
    entry: impl FnOnce(&mut CodeAssembler, CodeLabel) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut unload = a.create_label();
    a.lea(rax, ptr(unload))?;
    a.mov(qword_ptr(rcx + 0x68), rax)?;
    a.sub(rsp, 0x98)?;
    entry(a, unload)?;
    a.xor(eax, eax)?;
    a.add(rsp, 0x98)?;
    a.ret()?;
    a.set_label(&mut unload)?;
    a.ret()
}

#[test]
fn a_driver_that_leaves_nothing_behind_unloads_in_peace() {
    run_with(&["DbgPrint"], AMPLE, |a| unloadable(a, |_, _| Ok(()))).says(0, &["no findings"]);
}

#[test]
fn a_thread_that_outlives_its_driver_is_told() {
    run_with(&["PsCreateSystemThread"], AMPLE, |a| {
        // The unload routine serves as the thread's too: nobody waits for it.
        unloadable(a, |a, routine| start_thread(a, routine, 0))
    })
    .says(1, &["0xCE", "a system thread outlived the driver"]);
}

#[test]
fn a_timer_that_outlives_its_driver_is_told() {
    run_with(&["KeInitializeTimer", "KeSetTimerEx"], AMPLE, |a| {
        unloadable(a, |a, _| set_timer(a, -10_000_000, 0))
    })
    .says(1, &["0xCE", "a timer that is set outlived the driver"]);
}
