//! Drivers that do to the machine whatever code can do: each must end with a
//! report that names what happened, and with the right exit code.
#![allow(clippy::unwrap_used)]

mod support;

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, *};
use support::assembler::{AMPLE, BRIEF, call_import, run_code, run_with};
use support::image;

/// KUSER_SHARED_DATA.
const SHARED: u64 = 0xFFFF_F780_0000_0000;

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
