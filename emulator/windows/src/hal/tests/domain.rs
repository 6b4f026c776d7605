use crate::hal::{DomainId, DomainKind, HalError, Invalidation, State};
use crate::mm;
use crate::mm::testing::{DEVICE, TestMachine, state};
use crate::platform::Platform;
use iommu::spec::registers as reg;
use journal::event::{Event, Scope, Table};
use memory::{Gpa, PAGE_SIZE, Pfn};

const PAGE: Pfn = Pfn(20);
const OTHER: Pfn = Pfn(21);

/// A machine whose device is in a domain with tables.
pub(super) fn isolated() -> (State, mm::State, TestMachine, DomainId) {
    let (mut hal, mut mm, mut machine) = initialised();
    let domain = hal
        .create_domain(&mut machine, &mut mm, DomainKind::Translate)
        .unwrap();
    hal.attach(&mut machine, &mut mm, DEVICE, domain).unwrap();
    (hal, mm, machine, domain)
}

fn initialised() -> (State, mm::State, TestMachine) {
    let (mut hal, mut mm, mut machine) = (State::default(), state(), TestMachine::new());
    hal.init(&mut machine, &mut mm, &[DEVICE]).unwrap();
    (hal, mm, machine)
}

fn dropped(machine: &TestMachine) -> Vec<(Scope, bool, bool)> {
    machine
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Invalidate {
                scope,
                drain_reads,
                drain_writes,
                ..
            } => Some((scope, drain_reads, drain_writes)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_device_passes_through_after_initialisation() {
    let (hal, _, mut machine) = initialised();
    let status = machine.mmio_read(Gpa(iommu::REGISTER_BASE + u64::from(reg::GSTS)), 4) as u32;
    let on = reg::TRANSLATION_ENABLE | reg::QUEUE_ENABLE | reg::SET_ROOT_POINTER;
    assert_eq!(status & on, on);
    assert!(machine.device_reads(PAGE) && machine.device_writes(OTHER));
    assert!(hal.domain_of(DEVICE).is_some());
}

#[test]
fn only_mapped_pages_are_reachable() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    assert!(machine.device_reads(PAGE) && machine.device_writes(PAGE));
    assert!(!machine.device_reads(OTHER) && !machine.device_writes(OTHER));
}

#[test]
fn an_unmapped_page_is_out_of_reach_although_it_was_cached() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    assert!(machine.device_reads(PAGE));
    hal.unmap(&mut machine, domain, &[PAGE], true).unwrap();
    assert!(!machine.device_reads(PAGE));
}

#[test]
fn an_iotlb_left_as_it_is_still_answers() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    assert!(machine.device_reads(PAGE));
    let how = Invalidation {
        drain: true,
        skip: true,
    };
    hal.unmap_with(&mut machine, domain, &[PAGE], true, how)
        .unwrap();
    assert!(machine.device_reads(PAGE), "the translation is cached");
}

#[test]
fn the_leaf_is_cleared_before_the_invalidation_and_that_before_the_return() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    let before = machine.events().len();
    hal.unmap(&mut machine, domain, &[PAGE], true).unwrap();
    let order: Vec<&str> = machine.events()[before..]
        .iter()
        .filter_map(|event| match event {
            Event::TableWrite {
                new: 0,
                table: Table::SecondLevel { level: 1, .. },
                ..
            } => Some("clear"),
            Event::Invalidate {
                drain_reads: true,
                drain_writes: true,
                ..
            } => Some("invalidate"),
            Event::WaitDone { .. } => Some("wait"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["clear", "invalidate", "wait"]);
}

#[test]
fn few_pages_are_invalidated_by_ranges_and_many_by_domain() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    let scattered: Vec<Pfn> = (0..65).map(|i| Pfn(100 + 2 * i)).collect();
    hal.map_identity(&mut machine, &mut mm, domain, &scattered, true)
        .unwrap();
    let before = dropped(&machine).len();
    hal.unmap(&mut machine, domain, &scattered, true).unwrap();
    assert_eq!(
        dropped(&machine)[before..],
        [(Scope::Domain(domain.0), true, true)]
    );

    let run: Vec<Pfn> = (128..192).map(Pfn).collect();
    hal.map_identity(&mut machine, &mut mm, domain, &run, true)
        .unwrap();
    hal.unmap(&mut machine, domain, &run, true).unwrap();
    let pages = Scope::Pages {
        domain: domain.0,
        iova: memory::Iova(128 * PAGE_SIZE),
        count: 64,
    };
    assert_eq!(dropped(&machine)[before + 1..], [(pages, true, true)]);
}

#[test]
fn the_queue_wraps() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    for _ in 0..300 {
        hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
            .unwrap();
        hal.unmap(&mut machine, domain, &[PAGE], true).unwrap();
    }
    assert!(!machine.device_reads(PAGE));
}

#[test]
fn a_page_with_two_owners_stays_until_the_last_goes() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE, OTHER], true)
        .unwrap();
    hal.unmap(&mut machine, domain, &[PAGE, OTHER], true)
        .unwrap();
    assert!(machine.device_reads(PAGE) && !machine.device_reads(OTHER));
    hal.unmap(&mut machine, domain, &[PAGE], true).unwrap();
    assert!(!machine.device_reads(PAGE));
}

#[test]
fn a_read_only_page_cannot_be_written() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], false)
        .unwrap();
    assert!(machine.device_reads(PAGE) && !machine.device_writes(PAGE));
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    assert!(machine.device_writes(PAGE));
}

#[test]
fn the_device_may_what_the_owners_that_remain_may() {
    // Owners, by whether the device may write; who goes; may it still write?
    let table: &[(&[bool], bool, bool)] = &[
        (&[true, false], true, false),
        (&[false, true], true, false),
        (&[true, false], false, true),
        (&[false, true], false, true),
        (&[true, true], true, true),
        (&[false, false], false, false),
        (&[true, true, false], true, true),
    ];
    for &(owners, leaves, writes) in table {
        let (mut hal, mut mm, mut machine, domain) = isolated();
        for &write in owners {
            hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], write)
                .unwrap();
        }
        // So that the rights are cached.
        assert!(machine.device_reads(PAGE));
        assert_eq!(machine.device_writes(PAGE), owners.contains(&true));
        let before = dropped(&machine).len();
        hal.unmap(&mut machine, domain, &[PAGE], leaves).unwrap();
        assert!(machine.device_reads(PAGE), "{owners:?}");
        assert_eq!(machine.device_writes(PAGE), writes, "{owners:?}");
        let shrunk = usize::from(owners.contains(&true) && !writes);
        assert_eq!(dropped(&machine).len() - before, shrunk, "{owners:?}");
    }
}

#[test]
fn an_owner_leaves_by_the_rights_that_it_came_by() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], false)
        .unwrap();
    let error = hal.unmap(&mut machine, domain, &[PAGE], true).unwrap_err();
    assert!(matches!(error, HalError::NotMapped { page: 20, .. }));
    assert!(machine.device_reads(PAGE) && !machine.device_writes(PAGE));
}

#[test]
fn a_map_that_fails_leaves_the_rights_that_were_there() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], false)
        .unwrap();
    let beyond = [PAGE, Pfn(1 << 36)];
    let error = hal.map_identity(&mut machine, &mut mm, domain, &beyond, true);
    assert!(matches!(error, Err(HalError::BeyondWidth(_))));
    assert!(machine.device_reads(PAGE) && !machine.device_writes(PAGE));
    hal.unmap(&mut machine, domain, &[PAGE], false).unwrap();
    assert!(!machine.device_reads(PAGE));
}

#[test]
fn unmapping_what_is_not_mapped_changes_nothing() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    let error = hal
        .unmap(&mut machine, domain, &[PAGE, OTHER], true)
        .unwrap_err();
    assert!(matches!(error, HalError::NotMapped { page: 21, .. }));
    let error = hal
        .unmap(&mut machine, domain, &[PAGE, PAGE], true)
        .unwrap_err();
    assert!(matches!(error, HalError::NotMapped { page: 20, .. }));
    assert!(machine.device_reads(PAGE));
}

#[test]
fn a_map_that_runs_out_of_tables_maps_nothing() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    let left = mm.stats().free_frames;
    for _ in 0..left - 3 {
        mm.reserve_frame(&mut machine).unwrap();
    }
    // Three tables for the first page; the second needs another.
    let frames = [PAGE, Pfn(512)];
    let error = hal
        .map_identity(&mut machine, &mut mm, domain, &frames, true)
        .unwrap_err();
    assert!(matches!(error, HalError::Allocation(_)));
    assert!(!hal.is_mapped(domain, PAGE) && !machine.device_reads(PAGE));
}

#[test]
fn a_frame_beyond_the_width_is_refused() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    let error = hal.map_identity(&mut machine, &mut mm, domain, &[Pfn(1 << 36)], true);
    assert!(matches!(error, Err(HalError::BeyondWidth(_))));
}

#[test]
fn a_detached_device_reaches_nothing_and_can_be_attached_again() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    assert!(machine.device_reads(PAGE));
    hal.detach(&mut machine, DEVICE).unwrap();
    assert!(!machine.device_reads(PAGE));
    let error = hal.detach(&mut machine, DEVICE).unwrap_err();
    assert!(matches!(error, HalError::NotAttached(_)));
    hal.attach(&mut machine, &mut mm, DEVICE, domain).unwrap();
    assert!(machine.device_reads(PAGE));
}

#[test]
fn a_device_is_in_one_domain_at_a_time() {
    let (mut hal, mut mm, mut machine, _) = isolated();
    let second = hal
        .create_domain(&mut machine, &mut mm, DomainKind::Translate)
        .unwrap();
    let error = hal
        .attach(&mut machine, &mut mm, DEVICE, second)
        .unwrap_err();
    assert!(matches!(error, HalError::AlreadyAttached(_)));
    let error = hal
        .attach(&mut machine, &mut mm, DEVICE, DomainId(99))
        .unwrap_err();
    assert!(matches!(error, HalError::NoDomain(DomainId(99))));
}

#[test]
fn a_deleted_domain_gives_its_tables_back() {
    let (mut hal, mut mm, mut machine) = initialised();
    let before = mm.stats().free_frames;
    let domain = hal
        .create_domain(&mut machine, &mut mm, DomainKind::Translate)
        .unwrap();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE, Pfn(600)], true)
        .unwrap();
    assert_eq!(mm.stats().free_frames, before - 5);
    hal.delete_domain(&mut machine, &mut mm, domain).unwrap();
    assert_eq!(mm.stats().free_frames, before);
}

#[test]
fn a_domain_with_a_device_cannot_be_deleted() {
    let (mut hal, mut mm, mut machine, domain) = isolated();
    let error = hal
        .delete_domain(&mut machine, &mut mm, domain)
        .unwrap_err();
    assert!(matches!(error, HalError::DomainInUse(_)));
}

#[test]
fn an_access_in_flight_lands_before_the_unmap_returns() {
    use iommu::{Issued, Landing};
    let (mut hal, mut mm, mut machine, domain) = isolated();
    machine.part_accesses();
    hal.map_identity(&mut machine, &mut mm, domain, &[PAGE], true)
        .unwrap();
    let iova = memory::Iova(PAGE.base().0);
    let token = {
        let dma = machine.unit.dma(machine.env(), DEVICE, true);
        match dma.issue_read(iova, 8).unwrap() {
            Issued::InFlight(token) => token,
            other => panic!("{other:?}"),
        }
    };
    machine.memory().write_u64(PAGE.base(), 0x1111).unwrap();
    hal.unmap(&mut machine, domain, &[PAGE], true).unwrap();
    assert_eq!(machine.unit.in_flight(), 0);
    machine.memory().write_u64(PAGE.base(), 0x2222).unwrap();
    let dma = machine.unit.dma(machine.env(), DEVICE, true);
    match dma.land(token, true) {
        Landing::Landed(bytes) => assert_eq!(bytes, 0x1111u64.to_le_bytes()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_of_ram_is_mapped_by_the_largest_leaves_that_fit_and_for_good() {
    use journal::event::PageRun;
    let (mut hal, mut mm, mut machine, domain) = isolated();
    let before = machine.events().len();
    let run = PageRun {
        first: Pfn(511),
        count: 513,
    };
    hal.map_all(&mut machine, &mut mm, domain, &[run]).unwrap();
    let leaves = |wanted: u8| {
        let events = machine.events();
        let of_level = events[before..].iter().filter(|event| {
            matches!(event, Event::TableWrite { new, table: Table::SecondLevel { level, .. }, .. }
                if *level == wanted && (*level == 1 || new & 0x80 != 0))
        });
        of_level.count()
    };
    assert_eq!((leaves(1), leaves(2), leaves(3)), (1, 1, 0));
    assert!(machine.device_writes(Pfn(511)) && machine.device_reads(Pfn(1023)));
    assert!(!machine.device_reads(Pfn(510)));
    assert!(hal.is_mapped(domain, Pfn(700)) && !hal.is_mapped(domain, Pfn(510)));
    let error = hal.map_identity(&mut machine, &mut mm, domain, &[Pfn(700)], true);
    assert!(matches!(error, Err(HalError::Lasting { page: 700, .. })));
    let error = hal.unmap(&mut machine, domain, &[Pfn(700)], true);
    assert!(matches!(error, Err(HalError::NotMapped { .. })));
}

#[test]
fn nothing_works_before_initialisation() {
    let (mut hal, mut machine) = (State::default(), TestMachine::new());
    let error = hal
        .unmap(&mut machine, DomainId(1), &[PAGE], true)
        .unwrap_err();
    assert!(matches!(error, HalError::NoDomain(_)));
    assert_eq!(hal.fault_interrupt(&mut machine), None);
}
