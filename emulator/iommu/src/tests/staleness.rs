//! What a cache still says, and what makes it stop.

use super::*;
use crate::spec::registers as reg;
use crate::testing::{contexts, domain, global, pages};
use journal::event::{Outcome, Scope};

#[test]
fn a_cleared_leaf_still_answers_until_its_page_is_invalidated() {
    let (os, _, leaf) = one_page();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    os.poke(leaf, 0);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'), "stale");
    assert_eq!(poke(&dma, IOVA), Ok(()), "stale");
    assert!(os.run(pages(DOMAIN, IOVA, 0, true)));
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::ReadDenied));
}

#[test]
fn a_leaf_that_leads_elsewhere_is_seen_after_the_invalidation() {
    let (os, _, leaf) = one_page();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    os.poke(leaf, PAGE_B.0 | READ_WRITE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'), "stale");
    assert!(os.run(global(false)));
    assert_eq!(byte(&dma, IOVA), Ok(b'b'));
}

#[test]
fn what_is_not_present_is_not_cached() {
    let (os, _, leaf) = one_page();
    os.poke(leaf, 0);
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::ReadDenied));
    os.poke(leaf, PAGE_A.0 | READ_WRITE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
}

#[test]
fn a_granted_right_needs_no_invalidation_and_a_revoked_one_does() {
    let (os, _, leaf) = one_page();
    let dma = os.dma(DEVICE);
    os.poke(leaf, PAGE_A.0 | 1);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    assert_eq!(poke(&dma, IOVA), Err(FaultReason::WriteDenied));
    os.poke(leaf, PAGE_A.0 | READ_WRITE);
    assert_eq!(poke(&dma, IOVA), Ok(()));
    os.poke(leaf, PAGE_A.0 | 1);
    assert_eq!(poke(&dma, IOVA), Ok(()), "stale");
}

#[test]
fn each_fill_has_its_own_generation() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    let generation = || {
        let _ = byte(&dma, IOVA);
        let done = |event| match event {
            Event::Access {
                outcome:
                    Outcome::Done {
                        generation, cached, ..
                    },
                ..
            } => Some((generation, cached)),
            _ => None,
        };
        events(&os)
            .into_iter()
            .filter_map(done)
            .next_back()
            .unwrap()
    };
    assert_eq!(generation(), (1, false));
    assert_eq!(generation(), (1, true));
    assert!(os.run(global(true)));
    assert_eq!(generation(), (2, false));
}

/// Two domains of two pages each, all cached, then unmapped behind the
/// unit's back; gives which of them still answer.
fn survivors(invalidate: impl Fn(&Os)) -> [bool; 4] {
    let os = Os::started(RAM);
    let next = Iova(IOVA.0 + 4096);
    let accesses = [(DEVICE, IOVA), (DEVICE, next), (OTHER, IOVA), (OTHER, next)];
    let tops = [os.attach(DEVICE, 1, 4), os.attach(OTHER, 2, 4)];
    let leaves = tops.map(|top| [IOVA, next].map(|at| os.map(top, at, PAGE_A, READ_WRITE)));
    for (device, at) in accesses {
        byte(&os.dma(device), at).unwrap();
    }
    for leaf in leaves.into_iter().flatten() {
        os.poke(leaf, 0);
    }
    invalidate(&os);
    accesses.map(|(device, at)| byte(&os.dma(device), at).is_ok())
}

#[test]
fn each_granularity_drops_exactly_what_it_names() {
    let aligned = Iova(IOVA.0 & !0x1fff);
    assert_eq!(survivors(|_| ()), [true; 4]);
    assert_eq!(survivors(|os| assert!(os.run(global(true)))), [false; 4]);
    assert_eq!(
        survivors(|os| assert!(os.run(domain(1, true)))),
        [false, false, true, true]
    );
    assert_eq!(survivors(|os| assert!(os.run(domain(3, true)))), [true; 4]);
    assert_eq!(
        survivors(|os| assert!(os.run(pages(2, IOVA, 0, true)))),
        [true, true, false, true]
    );
    assert_eq!(
        survivors(|os| assert!(os.run(pages(1, aligned, 9, true)))),
        [false, false, true, true]
    );
    assert_eq!(
        survivors(|os| assert!(os.run(pages(1, Iova(0), 18, true)))),
        [true; 4]
    );
    // An address that a tag has no room for is no alias of one that it has.
    let beyond = Iova(1 << 48 | IOVA.0);
    assert_eq!(
        survivors(|os| assert!(os.run(pages(1, beyond, 0, true)))),
        [true; 4]
    );
}

#[test]
fn the_mask_ignores_the_low_bits_of_the_address() {
    let inside = Iova(IOVA.0 + 0x5000);
    assert_eq!(
        survivors(|os| assert!(os.run(pages(1, inside, 4, true)))),
        [false, false, true, true]
    );
}

#[test]
fn registers_invalidate_while_the_queue_is_off() {
    let by_register = |os: &Os, value: u64| {
        os.set(reg::GCMD, 4, u64::from(reg::TRANSLATION_ENABLE));
        os.set(reg::IVA, 8, IOVA.0);
        os.set(reg::IOTLB, 8, value | reg::IOTLB_INVALIDATE);
        assert_eq!(os.get(reg::IOTLB, 8) & reg::IOTLB_INVALIDATE, 0);
        (os.get(reg::IOTLB, 8) >> reg::IOTLB_ACTUAL) & 3
    };
    assert_eq!(
        survivors(|os| assert_eq!(by_register(os, 1 << 60), 1)),
        [false; 4]
    );
    assert_eq!(
        survivors(|os| assert_eq!(by_register(os, 2 << 60 | 2 << 32), 2)),
        [true, true, false, false]
    );
    assert_eq!(
        survivors(|os| assert_eq!(by_register(os, 3 << 60 | 1 << 32), 3)),
        [false, true, true, true]
    );
    assert_eq!(survivors(|os| assert_eq!(by_register(os, 0), 0)), [true; 4]);
}

#[test]
fn registers_do_nothing_while_the_queue_is_on() {
    let command = |os: &Os| {
        os.set(reg::IOTLB, 8, reg::IOTLB_INVALIDATE | 1 << 60);
        assert_eq!(os.get(reg::IOTLB, 8) >> reg::IOTLB_ACTUAL & 3, 0);
    };
    assert_eq!(survivors(command), [true; 4]);
}

#[test]
fn a_context_entry_answers_until_it_is_invalidated() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    let entry = os.context_entry(DEVICE);
    os.poke(entry, 0);
    assert!(os.run(global(true)), "the IOTLB is not the context cache");
    assert_eq!(byte(&dma, IOVA), Ok(b'a'), "stale");
    assert!(os.run(contexts(1, 0, DEVICE, 0)));
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::ContextNotPresent));
}

#[test]
fn context_invalidations_drop_what_they_name() {
    let dropped = |descriptor| {
        let os = Os::started(RAM);
        os.attach(DEVICE, 1, 4);
        os.attach(OTHER, 2, 4);
        for device in [DEVICE, OTHER] {
            let _ = byte(&os.dma(device), IOVA);
        }
        assert!(os.run(descriptor));
        let found = events(&os).into_iter().find_map(|event| match event {
            Event::Invalidate { scope, dropped, .. } => Some((scope, dropped)),
            _ => None,
        });
        found.unwrap()
    };
    // 00:02.5 reaches 00:02.0 only with the function bits masked.
    let sibling = RequesterId::new(0, 2, 5);
    assert_eq!(
        dropped(contexts(1, 0, DEVICE, 0)),
        (Scope::ContextGlobal, 2)
    );
    assert_eq!(
        dropped(contexts(2, 2, DEVICE, 0)),
        (Scope::ContextDomain(2), 1)
    );
    assert_eq!(
        dropped(contexts(3, 1, DEVICE, 0)),
        (Scope::ContextDevice(1, DEVICE), 1)
    );
    assert_eq!(
        dropped(contexts(3, 2, DEVICE, 0)),
        (Scope::ContextDevice(2, DEVICE), 0)
    );
    assert_eq!(
        dropped(contexts(3, 1, sibling, 0)),
        (Scope::ContextDevice(1, sibling), 0)
    );
    assert_eq!(
        dropped(contexts(3, 1, sibling, 3)),
        (Scope::ContextDevice(1, sibling), 1)
    );
}

#[test]
fn a_context_invalidation_leaves_the_iotlb() {
    // 6.5.1.1: the IOTLB has to be invalidated too.
    let (os, _, leaf) = one_page();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    os.poke(leaf, 0);
    assert!(os.run(contexts(1, 0, DEVICE, 0)));
    assert!(dma.peek(IOVA, &mut [0]), "a peek sees it");
    assert_eq!(byte(&dma, IOVA), Ok(b'a'), "stale");
    assert!(os.run(pages(DOMAIN, IOVA, 0, true)));
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::ReadDenied));
}

#[test]
fn devices_of_a_domain_share_its_entries_from_their_first_access() {
    let (os, top, leaf) = one_page();
    let entry = os.context_entry(DEVICE);
    assert_eq!(byte(&os.dma(DEVICE), IOVA), Ok(b'a'));
    os.poke(leaf, 0);
    let other = os.context_entry(OTHER);
    os.poke(Gpa(other.0 + 8), os.look(Gpa(entry.0 + 8)));
    os.poke(other, top.0 | 1);
    assert_eq!(byte(&os.dma(OTHER), IOVA), Ok(b'a'), "stale");
}

#[test]
fn a_full_set_gives_up_its_oldest_way() {
    // Five addresses of one set: the set repeats every 256 MiB.
    let os = Os::new(16 << 20, scenario::Scenario::for_test());
    os.start();
    let top = os.attach(DEVICE, DOMAIN, 4);
    let addresses: Vec<Iova> = (0..5).map(|i| Iova(i << 28)).collect();
    let leaves: Vec<Gpa> = addresses
        .iter()
        .map(|&at| os.map(top, at, PAGE_A, READ_WRITE))
        .collect();
    let dma = os.dma(DEVICE);
    for &at in &addresses {
        byte(&dma, at).unwrap();
    }
    for leaf in leaves {
        os.poke(leaf, 0);
    }
    let left = addresses
        .iter()
        .filter(|&&at| byte(&dma, at).is_ok())
        .count();
    assert_eq!(left, 4);
}

#[test]
fn a_peek_leaves_no_trace() {
    let (os, _, leaf) = one_page();
    let dma = os.dma(DEVICE);
    let (state, journal) = (os.unit.save(), os.scenario.journal().len());
    assert!(dma.peek(IOVA, &mut [0; 4]));
    assert!(!dma.peek(Iova(IOVA.0 + 4090), &mut [0; 16]));
    assert!(state == os.unit.save());
    assert_eq!(os.scenario.journal().len(), journal);
    os.poke(leaf, 0);
    assert_eq!(
        byte(&dma, IOVA),
        Err(FaultReason::ReadDenied),
        "nothing was cached"
    );
}
