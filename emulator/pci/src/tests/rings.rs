use super::{AVAIL, Bench, DESC, DEVICE, USED};
use crate::spec::virtio::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, STATUS_NEEDS_RESET};
use crate::{Chain, NO_QUEUE, RingError, Segment};
use journal::event::{ContextId, Event};
use memory::{Gpa, Iova};

fn pop(bench: &mut Bench) -> Result<Option<Chain>, RingError> {
    let dma = bench.os.dma(DEVICE);
    bench.function.pop(dma, 0)
}

fn segment(iova: u64, length: u32) -> Segment {
    Segment {
        iova: Iova(iova),
        length,
    }
}

#[test]
fn a_chain_is_parted_into_what_is_read_and_written() {
    let mut bench = Bench::live();
    bench.descriptor(DESC, 3, (0x5000, 24, DESC_NEXT, 5));
    bench.descriptor(DESC, 5, (0x6000, 8, DESC_NEXT, 1));
    bench.descriptor(DESC, 1, (0x7000, 32, DESC_WRITE, 0));
    bench.offer(&[3]);

    let chain = pop(&mut bench).unwrap().unwrap();

    assert_eq!(chain.head, 3);
    assert_eq!(chain.readable, [segment(0x5000, 24), segment(0x6000, 8)]);
    assert_eq!(chain.writable, [segment(0x7000, 32)]);
    assert_eq!(pop(&mut bench), Ok(None));
}

#[test]
fn an_indirect_table_is_followed() {
    let mut bench = Bench::live();
    bench.descriptor(0x9000, 0, (0x5000, 24, DESC_NEXT, 1));
    bench.descriptor(0x9000, 1, (0x7000, 32, DESC_WRITE, 0));
    bench.descriptor(DESC, 0, (0x9000, 32, DESC_INDIRECT, 0));
    bench.offer(&[0]);

    let chain = pop(&mut bench).unwrap().unwrap();

    assert_eq!(chain.readable, [segment(0x5000, 24)]);
    assert_eq!(chain.writable, [segment(0x7000, 32)]);
}

#[test]
fn a_context_of_the_devices_own_is_told_and_no_buffer_gets_it() {
    let mut bench = Bench::live();
    bench.descriptor(DESC, 0, (0x5000, 24, 0, 0));
    let dma = bench.os.dma(DEVICE);

    let own = bench.function.mint(dma, 7, 3);

    assert!(bench.events().contains(&Event::Context {
        context: own,
        device: DEVICE,
        queue: NO_QUEUE,
        position: 7,
        head: 3,
    }));
    bench.offer(&[0]);
    let chain = pop(&mut bench).unwrap().unwrap();
    assert_ne!(chain.context, own);
    assert_ne!(own, ContextId(0));
}

#[test]
fn descriptors_are_read_in_the_chains_own_context() {
    let mut bench = Bench::live();
    bench.descriptor(DESC, 0, (0x5000, 24, 0, 0));
    bench.offer(&[0]);

    let chain = pop(&mut bench).unwrap().unwrap();

    let seen: Vec<_> = bench
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Access { context, iova, .. } => Some((context, Some(iova))),
            Event::Context { context, .. } => Some((context, None)),
            _ => None,
        })
        .collect();
    let ring = ContextId(0);
    assert_eq!(
        seen,
        [
            (ring, Some(Iova(AVAIL + 2))),
            (ring, Some(Iova(AVAIL + 4))),
            (chain.context, None),
            (chain.context, Some(Iova(DESC))),
        ]
    );
}

#[test]
fn malformed_chains_need_a_reset() {
    type Descriptors = &'static [(u64, (u64, u32, u16, u16))];
    let rows: [(&str, Descriptors, u16); 8] = [
        ("loop", &[(0, (0x5000, 8, DESC_NEXT, 0))], 0),
        (
            "next outside the table",
            &[(0, (0x5000, 8, DESC_NEXT, 16))],
            0,
        ),
        ("head outside the table", &[], 16),
        (
            "readable after writable",
            &[
                (0, (0x5000, 8, DESC_WRITE | DESC_NEXT, 1)),
                (1, (0x6000, 8, 0, 0)),
            ],
            0,
        ),
        (
            "indirect of odd size",
            &[(0, (0x9000, 17, DESC_INDIRECT, 0))],
            0,
        ),
        ("empty indirect", &[(0, (0x9000, 0, DESC_INDIRECT, 0))], 0),
        (
            "indirect in indirect",
            &[
                (0, (DESC + 16, 16, DESC_INDIRECT, 0)),
                (1, (0x9000, 16, DESC_INDIRECT, 0)),
            ],
            0,
        ),
        (
            "more than 4 GiB",
            &[
                (0, (0x5000, u32::MAX, DESC_NEXT, 1)),
                (1, (0x6000, 8, 0, 0)),
            ],
            0,
        ),
    ];
    for (name, descriptors, head) in rows {
        let mut bench = Bench::live();
        for &(index, fields) in descriptors {
            bench.descriptor(DESC, index, fields);
        }
        bench.offer(&[head]);

        let result = pop(&mut bench);

        assert_eq!(result, Err(RingError::Chain(0)), "{name}");
        let status = bench.function.transport().status();
        assert_ne!(status & STATUS_NEEDS_RESET, 0, "{name}");
    }
}

#[test]
fn a_chain_longer_than_the_limit_is_refused() {
    for (length, taken) in [(1024u64, true), (1025, false)] {
        let mut bench = Bench::live();
        for index in 0..length {
            let flags = if index + 1 < length { DESC_NEXT } else { 0 };
            bench.descriptor(0x2_0000, index, (0x5000, 1, flags, index as u16 + 1));
        }
        bench.descriptor(DESC, 0, (0x2_0000, 16 * length as u32, DESC_INDIRECT, 0));
        bench.offer(&[0]);

        assert_eq!(pop(&mut bench).is_ok(), taken);
    }
}

#[test]
fn an_available_index_too_far_ahead_needs_a_reset() {
    let mut bench = Bench::live();
    bench.poke(AVAIL + 2, &17u16.to_le_bytes());

    assert_eq!(pop(&mut bench), Err(RingError::Index(0)));
}

#[test]
fn a_fault_in_a_ring_needs_a_reset_and_interrupts() {
    let mut bench = Bench::live();
    bench.messages();
    // Off the end of RAM.
    bench.descriptor(DESC, 0, (0x1_0000_0000, 64, DESC_INDIRECT, 0));
    bench.offer(&[0]);

    let result = pop(&mut bench);

    assert_eq!(result, Err(RingError::Fault(0)));
    assert_eq!(
        bench.function.transport().failure(),
        Some(&RingError::Fault(0))
    );
    assert_eq!(bench.sent(), [0x40]);
    assert!(!bench.function.transport().is_live());
}

#[test]
fn used_elements_carry_head_and_length() {
    let mut bench = Bench::live();
    let dma = bench.os.dma(DEVICE);

    bench.function.add_used(dma, 0, 7, 24).unwrap();

    let mut element = [0; 12];
    bench.os.memory.read(Gpa(USED), &mut element).unwrap();
    assert_eq!(element, [0, 0, 1, 0, 7, 0, 0, 0, 24, 0, 0, 0]);
}

#[test]
fn no_interrupt_flag_is_heard() {
    for (flags, wanted) in [(0u16, true), (1, false), (2, true)] {
        let mut bench = Bench::live();
        bench.poke(AVAIL, &flags.to_le_bytes());
        let dma = bench.os.dma(DEVICE);

        assert_eq!(bench.function.wants_interrupt(dma, 0), Ok(wanted));
    }
}

#[test]
fn contexts_go_on_after_a_reset() {
    let mut bench = Bench::live();
    bench.descriptor(DESC, 0, (0x5000, 24, 0, 0));
    bench.offer(&[0]);
    let first = pop(&mut bench).unwrap().unwrap().context;

    bench.write(0, 0x14, 1, 0);
    bench.start();

    let second = pop(&mut bench).unwrap().unwrap().context;
    assert!(second > first);
}

#[test]
fn buffers_not_yet_taken_are_foreseen_without_a_trace() {
    let mut bench = Bench::live();
    bench.descriptor(DESC, 0, (0x5000, 24, DESC_NEXT, 1));
    bench.descriptor(DESC, 1, (0x7000, 32, DESC_WRITE, 0));
    bench.descriptor(0x9000, 0, (0x5000, 24, DESC_NEXT, 1));
    bench.descriptor(0x9000, 1, (0x8000, 48, DESC_WRITE, 0));
    bench.descriptor(DESC, 2, (0x9000, 32, DESC_INDIRECT, 0));
    bench.offer(&[0, 2]);
    let before = bench.events().len();
    let foresee = |bench: &Bench| {
        let dma = bench.os.dma(DEVICE);
        bench.function.transport().foresee_writes(dma, 0, 100)
    };
    let used = segment(USED, 6 + 8 * 16);

    let all = foresee(&bench);

    assert_eq!(all, [used, segment(0x7000, 32), segment(0x8000, 48)]);
    assert_eq!(bench.events().len(), before);
    pop(&mut bench).unwrap();
    assert_eq!(foresee(&bench), [used, segment(0x8000, 48)]);
}

#[test]
fn foresight_of_hostile_rings_ends() {
    for flags in [DESC_NEXT, DESC_NEXT | DESC_WRITE, DESC_INDIRECT] {
        let bench = Bench::live();
        // To itself, and as an indirect table to the queue's own.
        bench.descriptor(DESC, 0, (DESC, 16, flags, 0));
        bench.offer(&[0; 16]);
        let dma = bench.os.dma(DEVICE);

        let found = bench.function.transport().foresee_writes(dma, 0, 100);

        assert!(found.len() <= 101);
    }
}
