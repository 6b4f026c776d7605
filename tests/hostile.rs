//! Drivers that do to the machine whatever code can do: each must end with a
//! report that names what happened, and with the right exit code.
#![allow(clippy::unwrap_used)]

mod support;

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, *};
use std::time::{Duration, Instant};
use support::{image, run, told};

/// KUSER_SHARED_DATA.
const SHARED: u64 = 0xFFFF_F780_0000_0000;
/// The handle that dxgkrnl gives an adapter.
const ADAPTER: u64 = 0xFFFF_C00F_0000_1000;
/// Where `DxgkCbGetDeviceInformation` says that the first BAR is.
const FIRST_BAR: u64 = 0xFFFF_F800_0400_3018;

/// Seconds that a run may take which is to end by itself.
const AMPLE: &[&str] = &["--timeout", "30"];
/// Seconds for one that is to be a hang.
const BRIEF: &[&str] = &["--timeout", "2"];

/// What a run came to.
struct Ran {
    code: Option<i32>,
    /// Standard output and error.
    text: String,
}

impl Ran {
    #[track_caller]
    fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "{word:?} is not in {}", self.text);
        }
        assert!(!self.text.contains("panicked"), "{}", self.text);
    }
}

fn run_with(
    imports: &[&str],
    arguments: &[&str],
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Ran {
    let mut assembler = CodeAssembler::new(64).unwrap();
    code(&mut assembler).unwrap();
    let code = assembler.assemble(0xFFFF_F800_1000_1000).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("driver.sys");
    std::fs::write(&path, image::driver_with(imports, &code)).unwrap();
    let started = Instant::now();
    let output = run(&path, &folder.path().join("out"), arguments);
    assert!(started.elapsed() < Duration::from_secs(40));
    let (code, stdout, stderr) = told(&output);
    Ran {
        code,
        text: format!("{stdout}\n{stderr}"),
    }
}

fn run_code(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Ran {
    run_with(&["DbgPrint"], AMPLE, code)
}

/// `call` of an import; destroys R11.
fn call_import(a: &mut CodeAssembler, index: usize) -> Result<(), IcedError> {
    a.mov(r11, image::slot(index))?;
    a.call(qword_ptr(r11))
}

#[test]
fn a_stack_overflow_is_a_double_fault() {
    run_code(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.call(top)
    })
    .says(1, &["0x7F ", "double fault"]);
}

#[test]
fn an_exception_without_a_stack_is_a_double_fault() {
    run_code(|a| {
        a.xor(esp, esp)?;
        a.int3()
    })
    .says(1, &["0x7F ", "int 3"]);
}

#[test]
fn a_call_without_a_stack_is_told() {
    run_code(|a| {
        a.xor(esp, esp)?;
        call_import(a, 0)
    })
    .says(1, &["0x7F "]);
}

#[test]
fn a_service_called_without_a_stack_is_told() {
    // Jumped to: the thunk itself is reached, and returns nowhere.
    run_with(&["KeGetCurrentIrql"], AMPLE, |a| {
        a.mov(rax, image::slot(0))?;
        a.mov(rsp, 0x1122_3344_5566_7788u64)?;
        a.jmp(qword_ptr(rax))
    })
    .says(1, &["0x7F "]);
}

#[test]
fn jumps_to_nowhere_are_told() {
    for (target, says) in [
        (0u64, "0x7E "),
        (0x1234, "0x7E "),
        (0xFFFF_F900_0000_0001, "0x50 "),
        (0x1234_5678_9ABC_DEF0, "0x7E "),
        (u64::MAX, "0x50 "),
        (SHARED + 0x300, "0xFC "),
    ] {
        run_code(|a| {
            a.mov(rax, target)?;
            a.jmp(rax)
        })
        .says(1, &[says]);
    }
}

#[test]
fn jumps_into_windows_own_code_end() {
    // Thunks, the return page, helpers: at every offset.
    for page in [0x0010_0000u64, 0x000F_0000, 0x0020_0000] {
        for offset in 0..9 {
            let ran = run_code(|a| {
                a.mov(rax, 0xFFFF_F800_0000_0000 + page + offset)?;
                a.jmp(rax)
            });
            assert!(
                matches!(ran.code, Some(0 | 1 | 3)),
                "{page:#x}+{offset}: {:?} {}",
                ran.code,
                ran.text
            );
            assert!(!ran.text.contains("panicked"), "{}", ran.text);
        }
    }
}

#[test]
fn a_missing_import_is_named_at_any_offset_of_its_page() {
    run_with(&["ExNobodyKnowsThis"], AMPLE, |a| {
        a.mov(rax, image::slot(0))?;
        a.mov(rax, qword_ptr(rax))?;
        a.add(rax, 0x123)?;
        a.jmp(rax)
    })
    .says(3, &["ntoskrnl.exe!ExNobodyKnowsThis", "calls"]);
}

#[test]
fn forged_calls_and_returns_do_no_harm() {
    for (port, value) in [(0xE0, u32::MAX), (0xE0, 1), (0xE4, 0)] {
        let ran = run_code(|a| {
            a.mov(eax, value)?;
            a.out(port, eax)?;
            a.xor(eax, eax)?;
            a.ret()
        });
        assert!(matches!(ran.code, Some(0 | 1)), "{}", ran.text);
    }
}

#[test]
fn other_ways_to_the_machines_ports_end() {
    let read = run_code(|a| {
        a.in_(eax, 0xE0)?;
        a.xor(eax, eax)?;
        a.ret()
    });
    assert!(read.code.is_some_and(|c| c <= 3), "{}", read.text);
    let string = run_code(|a| {
        a.mov(edx, 0xE0)?;
        a.mov(ecx, 100)?;
        a.mov(rsi, rsp)?;
        a.rep().outsb()?;
        a.xor(eax, eax)?;
        a.ret()
    });
    assert!(string.code.is_some_and(|c| c <= 3), "{}", string.text);
}

#[test]
fn the_time_page_can_be_read_in_every_way() {
    run_code(|a| {
        let mut top = a.create_label();
        a.mov(rsi, SHARED)?;
        a.mov(ecx, 0x40)?;
        a.set_label(&mut top)?;
        a.lodsb()?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.mov(rsi, SHARED)?;
        a.mov(ecx, 0x1000)?;
        a.rep().lodsb()?;
        a.mov(rsi, SHARED)?;
        a.lea(rdi, ptr(rsp - 0x1800))?;
        a.mov(ecx, 0x1000)?;
        a.rep().movsb()?;
        a.mov(rsi, SHARED)?;
        a.movups(xmm0, xmmword_ptr(rsi + 0x10))?;
        a.mov(rax, SHARED + 0x14)?;
        a.jmp(qword_ptr(rax))
    })
    // What lies there is no address.
    .says(1, &["0x7E "]);
}

#[test]
fn the_time_page_cannot_be_written_in_any_way() {
    type Write = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let writes: [Write; 7] = [
        |a| a.mov(dword_ptr(rax), ecx),
        |a| a.lock().inc(dword_ptr(rax)),
        |a| a.movups(xmmword_ptr(rax), xmm0),
        |a| {
            a.mov(rdi, rax)?;
            a.mov(ecx, 0x100)?;
            a.rep().stosb()
        },
        |a| a.xchg(qword_ptr(rax), rcx),
        |a| {
            // A call through the page with the stack in it: the host does
            // such a branch itself.
            a.lea(rsp, ptr(rax + 0x800))?;
            a.call(qword_ptr(rax))
        },
        |a| a.bts(dword_ptr(rax), 3),
    ];
    for (index, write) in writes.iter().enumerate() {
        let ran = run_code(|a| {
            a.mov(rax, SHARED)?;
            write(a)
        });
        assert_eq!(ran.code, Some(1), "{index}: {}", ran.text);
        let told = ["0xBE ", "0x7F "];
        assert!(
            told.iter().any(|code| ran.text.contains(code)),
            "{index}: {}",
            ran.text
        );
    }
}

#[test]
fn code_that_writes_itself_is_told() {
    run_code(|a| {
        a.mov(rax, 0xFFFF_F800_1000_1000u64)?;
        a.mov(byte_ptr(rax), 0x90)
    })
    .says(1, &["0xBE ", "ATTEMPTED_WRITE"]);
}

#[test]
fn exceptions_are_told_by_name() {
    type Raise = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let table: [(Raise, &str); 6] = [
        (|a| a.int3(), "int 3"),
        (|a| a.int(0x29), "0x139 "),
        (|a| a.int(0x2C), "assertion"),
        (|a| a.ud2(), "0x7E "),
        (
            |a| {
                a.xor(ecx, ecx)?;
                a.div(ecx)
            },
            "division by zero",
        ),
        (
            |a| {
                a.mov(rax, 0x1234_5678_9ABC_DEF0u64)?;
                a.mov(eax, dword_ptr(rax))
            },
            "general protection",
        ),
    ];
    for (raise, says) in table {
        run_code(raise).says(1, &[says]);
    }
}

#[test]
fn above_apc_level_a_null_pointer_is_the_irqls_fault() {
    run_with(&["KeRaiseIrqlToDpcLevel"], AMPLE, |a| {
        a.sub(rsp, 0x28)?;
        call_import(a, 0)?;
        a.xor(eax, eax)?;
        a.mov(eax, dword_ptr(rax))
    })
    .says(1, &["0xD1 "]);
}

#[test]
fn a_routine_that_returns_at_another_irql_is_told() {
    run_with(&["KeRaiseIrqlToDpcLevel"], AMPLE, |a| {
        a.sub(rsp, 0x28)?;
        call_import(a, 0)?;
        a.add(rsp, 0x28)?;
        a.xor(eax, eax)?;
        a.ret()
    })
    .says(1, &["0xC8 ", "DriverEntry"]);
}

#[test]
fn polling_and_halting_for_ever_are_hangs() {
    run_with(&["DbgPrint"], BRIEF, |a| {
        let mut top = a.create_label();
        a.mov(rax, SHARED)?;
        a.set_label(&mut top)?;
        a.mov(ecx, dword_ptr(rax + 0x14))?;
        a.jmp(top)
    })
    .says(1, &["hang"]);
    run_with(&["DbgPrint"], BRIEF, |a| {
        let mut top = a.create_label();
        a.cli()?;
        a.set_label(&mut top)?;
        a.hlt()?;
        a.jmp(top)
    })
    .says(1, &["hang"]);
}

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
