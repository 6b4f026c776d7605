#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::testing::{TEXT, TestFunction, mapped_image, unwind_info_rva};
use super::*;

const BASE: u64 = 0xffff_f800_1000_0000;
const STACK: u64 = 0xffff_8000_0001_0000;

/// push rbx; sub rsp, 0x20
const PUSH_RBX_ALLOC_32: &[u8] = &[0x01, 5, 2, 0, 5, 0x32, 1, 0x30];
/// push rbp; sub rsp, 0x30; lea rbp, [rsp + 0x20]; then RSP moves freely.
const FRAME_POINTER: &[u8] = &[0x01, 10, 3, 0x25, 10, 0x03, 5, 0x52, 1, 0x50, 0, 0];
/// sub rsp, 0x1000 with a 16-bit size; mov [rsp + 0x40], rsi
const LARGE_ALLOC_SAVE: &[u8] = &[0x01, 12, 4, 0, 12, 0x64, 8, 0, 7, 0x01, 0, 2];
/// push rdi; push r12; sub rsp, 0x80000 with a 32-bit size. Five slots and padding.
const HUGE_ALLOC: &[u8] = &[0x01, 12, 5, 0, 12, 0x11, 0, 0, 8, 0, 3, 0xc0, 1, 0x70, 0, 0];

fn with(begin: u32, end: u32, info: &[u8]) -> TestFunction {
    TestFunction {
        begin,
        end,
        unwind_info: info.to_vec(),
    }
}

/// A megabyte of zeros, but for these words.
struct Stack(BTreeMap<u64, u64>);

impl Stack {
    fn new(words: &[(u64, u64)]) -> Self {
        Self(
            words
                .iter()
                .map(|&(offset, value)| (STACK + offset, value))
                .collect(),
        )
    }

    fn unwind(&self, unwinder: &Unwinder, start: Registers) -> Vec<u64> {
        let mut read = |address: u64| {
            let inside = (STACK..STACK + (1 << 20)).contains(&address);
            inside.then(|| self.0.get(&address).copied().unwrap_or(0))
        };
        unwinder.unwind(&start, &mut read, 64)
    }
}

fn unwinder(functions: &[TestFunction], code: &[(u32, &[u8])]) -> Unwinder {
    let mut unwinder = Unwinder::new();
    unwinder
        .add_module("test.sys", BASE, &mapped_image(functions, code))
        .unwrap();
    unwinder
}

fn at(rva: u64) -> Registers {
    Registers {
        rip: BASE + rva,
        rsp: STACK,
        ..Registers::default()
    }
}

#[test]
fn chain_of_prologs_is_unwound() {
    let unwinder = unwinder(
        &[
            with(0x1000, 0x1040, PUSH_RBX_ALLOC_32),
            with(0x1040, 0x1080, FRAME_POINTER),
            with(0x1080, 0x10c0, LARGE_ALLOC_SAVE),
            with(0x10c0, 0x1100, HUGE_ALLOC),
        ],
        &[],
    );
    // The second frame has moved RSP down since its prolog; RBP says where RSP
    // was (0xfe0), so the saved RBP is at 0x1010 and the return at 0x1018.
    let large = 0x1020;
    let huge = large + 0x1008;
    let stack = Stack::new(&[
        (0x20, 7),
        (0x28, BASE + 0x1060),
        (0x1010, 0x1111),
        (0x1018, BASE + 0x10a0),
        (large + 0x40, 0x2222),
        (large + 0x1000, BASE + 0x10e0),
        (huge + 0x80000, 0x3333),
        (huge + 0x80008, 0x4444),
        (huge + 0x80010, BASE + 0x1110),
        // The last has no entry: a leaf, called from outside.
        (huge + 0x80018, 0x1234),
    ]);
    let start = Registers {
        rbp: STACK + 0x1000,
        ..at(0x1020)
    };

    let addresses = stack.unwind(&unwinder, start);

    let rvas: Vec<u64> = addresses.iter().map(|address| address - BASE).collect();
    assert_eq!(rvas, [0x1020, 0x1060, 0x10a0, 0x10e0, 0x1110]);
}

#[test]
fn leaf_function_returns_to_top_of_stack() {
    let unwinder = unwinder(&[with(0x1000, 0x1040, PUSH_RBX_ALLOC_32)], &[]);
    let stack = Stack::new(&[(0, BASE + 0x1020), (0x28, 0), (0x30, 0x55)]);

    assert_eq!(
        stack.unwind(&unwinder, at(0x1800)),
        [BASE + 0x1800, BASE + 0x1020]
    );
}

#[test]
fn call_to_unknown_address_is_unwound_to_its_caller() {
    let unwinder = unwinder(&[with(0x1000, 0x1040, PUSH_RBX_ALLOC_32)], &[]);
    let stack = Stack::new(&[(0, BASE + 0x1020), (0x30, 0x55)]);
    let start = Registers {
        rip: 0,
        rsp: STACK,
        ..Registers::default()
    };

    assert_eq!(stack.unwind(&unwinder, start), [0, BASE + 0x1020]);
}

#[test]
fn prolog_is_undone_as_far_as_it_ran() {
    let unwinder = unwinder(&[with(0x1000, 0x1040, PUSH_RBX_ALLOC_32)], &[]);
    // Offset 0: nothing ran; 1: rbx is pushed; 5: the area is allocated.
    for (offset, return_at) in [(0u64, 0u64), (1, 8), (5, 0x28)] {
        let stack = Stack::new(&[(return_at, BASE + 0x1030)]);
        let addresses = stack.unwind(&unwinder, at(0x1000 + offset));
        assert_eq!(addresses.get(1), Some(&(BASE + 0x1030)), "offset {offset}");
    }
}

#[test]
fn epilog_is_recognised_in_first_frame_only() {
    // add rsp, 0x20; pop rbx; ret
    let code: &[u8] = &[0x48, 0x83, 0xc4, 0x20, 0x5b, 0xc3];
    let unwinder = unwinder(
        &[with(0x1000, 0x1040, PUSH_RBX_ALLOC_32)],
        &[(0x1030, code)],
    );
    for (rva, return_at) in [(0x1030u64, 0x28u64), (0x1034, 8), (0x1035, 0)] {
        // The caller's frame is this function's, at its epilog: it is whole.
        let stack = Stack::new(&[
            (return_at, BASE + 0x1034),
            (return_at + 0x30, BASE + 0x1010),
        ]);
        let addresses = stack.unwind(&unwinder, at(rva));
        assert_eq!(
            addresses,
            [BASE + rva, BASE + 0x1034, BASE + 0x1010],
            "rva {rva:x}"
        );
    }
}

#[test]
fn chained_information_is_followed() {
    // The second part of the function saved rsi at [rsp + 0x10] and is chained
    // to the first, whose codes all ran. One code: a padding slot precedes the
    // chained entry.
    let mut second = vec![0x21, 4, 2, 0, 4, 0x64, 2, 0];
    second.extend(0x1000u32.to_le_bytes());
    second.extend(0x1040u32.to_le_bytes());
    second.extend(unwind_info_rva(0).to_le_bytes());
    let mut third = vec![0x21, 0, 1, 0, 0, 0x02, 0, 0];
    third.extend(0x1100u32.to_le_bytes());
    third.extend(0x1140u32.to_le_bytes());
    third.extend(unwind_info_rva(1).to_le_bytes());
    let unwinder = unwinder(
        &[
            with(0x1000, 0x1040, PUSH_RBX_ALLOC_32),
            with(0x1100, 0x1140, &second),
            with(0x1200, 0x1240, &third),
        ],
        &[],
    );
    // third: 8 bytes; second: reads rsi; first: 0x20 bytes and rbx.
    let stack = Stack::new(&[(0x18, 0x99), (0x30, BASE + 0x1020)]);

    assert_eq!(
        stack.unwind(&unwinder, at(0x1220)),
        [BASE + 0x1220, BASE + 0x1020]
    );
}

#[test]
fn chain_that_points_to_itself_ends() {
    let mut info = vec![0x21, 0, 0, 0];
    info.extend(0x1000u32.to_le_bytes());
    info.extend(0x1040u32.to_le_bytes());
    info.extend(unwind_info_rva(0).to_le_bytes());
    let unwinder = unwinder(&[with(0x1000, 0x1040, &info)], &[]);

    assert_eq!(
        Stack::new(&[(0, BASE + 0x1020)]).unwind(&unwinder, at(0x1010)),
        [BASE + 0x1010]
    );
}

#[test]
fn machine_frame_gives_interrupted_instruction() {
    // A trap handler: error code and machine frame, then sub rsp, 0x20.
    let trap = [0x01, 4, 2, 0, 4, 0x32, 0, 0x1a];
    let unwinder = unwinder(
        &[
            with(0x1000, 0x1040, &trap),
            with(0x1040, 0x1080, PUSH_RBX_ALLOC_32),
        ],
        &[],
    );
    // Interrupted at the function's first instruction: nothing of its prolog ran.
    let stack = Stack::new(&[
        (0x28, BASE + 0x1040),
        (0x40, STACK + 0x800),
        (0x800, BASE + 0x1060),
    ]);

    let addresses = stack.unwind(&unwinder, at(0x1010));

    assert_eq!(addresses, [BASE + 0x1010, BASE + 0x1040, BASE + 0x1060]);
}

#[test]
fn call_as_last_instruction_belongs_to_its_function() {
    let unwinder = unwinder(
        &[
            with(0x1000, 0x1040, PUSH_RBX_ALLOC_32),
            with(0x1040, 0x1080, FRAME_POINTER),
        ],
        &[],
    );
    // The return address is the end of the first function.
    let stack = Stack::new(&[(0, BASE + 0x1040), (0x30, BASE + 0x1010)]);

    let addresses = stack.unwind(&unwinder, at(0x1800));

    assert_eq!(addresses, [BASE + 0x1800, BASE + 0x1040, BASE + 0x1010]);
}

#[test]
fn limit_is_obeyed() {
    let unwinder = unwinder(&[], &[]);
    let mut read = |_| Some(BASE + 0x1000);

    assert_eq!(unwinder.unwind(&at(0x1000), &mut read, 5).len(), 5);
    assert_eq!(unwinder.unwind(&at(0x1000), &mut read, 0).len(), 0);
}

#[test]
fn stack_that_moves_down_ends_walk() {
    let unwinder = unwinder(&[with(0x1000, 0x1040, FRAME_POINTER)], &[]);
    let start = Registers {
        rbp: STACK - 0x1000,
        ..at(0x1020)
    };

    assert_eq!(
        unwinder
            .unwind(&start, &mut |_| Some(BASE + 0x1020), 100)
            .len(),
        1
    );
}

#[test]
fn modules_must_not_overlap() {
    let image = mapped_image(&[], &[]);
    let size = image.len() as u64;
    let mut unwinder = Unwinder::new();
    unwinder.add_module("a.sys", BASE, &image).unwrap();

    for base in [BASE, BASE + size - 1, BASE - size + 1, u64::MAX - 1] {
        assert_eq!(
            unwinder.add_module("b.sys", base, &image),
            Err(UnwindError::BadRange {
                name: "b.sys".into(),
                base
            })
        );
    }
    unwinder.add_module("b.sys", BASE + size, &image).unwrap();
    unwinder.add_module("c.sys", BASE - size, &image).unwrap();
    assert_eq!(unwinder.module_at(BASE - 1), Some(("c.sys", 0x3fff)));
    assert!(unwinder.remove_module(BASE));
    assert!(!unwinder.remove_module(BASE));
    assert_eq!(unwinder.module_at(BASE), None);
}

#[test]
fn function_table_outside_image_is_an_error() {
    let image = mapped_image(&[with(TEXT, TEXT + 1, PUSH_RBX_ALLOC_32)], &[]);

    assert_eq!(
        Unwinder::new().add_module("a.sys", BASE, &image[..0x3000]),
        Err(UnwindError::BadImage {
            name: "a.sys".into()
        })
    );
}

proptest! {
    #[test]
    fn hostile_images_and_stacks_never_panic(
        info in proptest::collection::vec(any::<u8>(), 0x40..=0x40),
        code in proptest::collection::vec(any::<u8>(), 0x20..=0x20),
        ranges in proptest::collection::vec((0u32..0x5000, 0u32..0x5000), 1..8),
        rip in 0u64..0x4000,
        rsp in prop_oneof![any::<u64>(), Just(u64::MAX - 7), Just(STACK)],
        rbp in any::<u64>(),
        words in proptest::collection::vec(any::<u64>(), 1..16),
    ) {
        let functions: Vec<_> = ranges.iter().map(|&(begin, end)| with(begin, end, &info)).collect();
        let unwinder = unwinder(&functions, &[(0x1000, &code)]);
        let start = Registers { rip: BASE + rip, rsp, rbp, ..Registers::default() };
        let mut reads = 0usize;
        let addresses = unwinder.unwind(&start, &mut |address| {
            reads += 1;
            let word = words[reads % words.len()];
            Some(if word % 3 == 0 { word } else { BASE + address % 0x4000 })
        }, 32);
        prop_assert!(!addresses.is_empty() && addresses.len() <= 32);
        prop_assert!(reads <= 32 * (MAX_CHAIN * 256 + 2));
    }
}
