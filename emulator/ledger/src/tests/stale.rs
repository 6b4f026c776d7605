//! What a cache of the IOMMU still knows: stale accesses and missing
//! invalidations.

use super::*;
use crate::Party;

#[test]
fn cached_access_after_the_entry_was_cleared_is_stale() {
    let findings = Run::isolated()
        .used()
        .unmap(ADDRESS)
        .returned()
        .done(1, ADDRESS, PAGE, true)
        .findings();

    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, Kind::StaleIotlb);
    assert_eq!(findings[0].blame[0].party, Party::OperatingSystem);
    assert!(
        findings[0].blame[0]
            .reason
            .contains("never invalidated in the IOTLB")
    );
}

#[test]
fn cached_access_after_the_entry_was_changed_is_stale() {
    let run = Run::isolated()
        .used()
        .map(ADDRESS, PAGE + 3)
        .returned()
        .done(1, ADDRESS, PAGE, true);

    assert_eq!(run.kinds(), [Kind::StaleIotlb]);
}

#[test]
fn stale_access_after_an_invalidation_is_the_iommus() {
    let findings = Run::isolated()
        .used()
        .unmap(ADDRESS)
        .invalidate(true)
        .returned()
        .done(1, ADDRESS, PAGE, true)
        .findings();

    assert_eq!(findings[0].blame[0].party, Party::Device);
}

#[test]
fn stale_access_to_freed_page_is_two_findings_the_systems_first() {
    let findings = Run::isolated()
        .used()
        .cleared()
        .free(1)
        .command(2, 4)
        .done(2, ADDRESS, PAGE, true)
        .findings();

    let kinds: Vec<_> = findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [Kind::StaleIotlb, Kind::DmaUseAfterFree]);
    assert_eq!(findings[0].blame[0].party, Party::OperatingSystem);
    assert_eq!(findings[0].blame[1].party, Party::Driver);
    assert_eq!(findings[1].blame[0].party, Party::Driver);
    assert_eq!(
        (&findings[0].related[..], &findings[1].related[..]),
        (&[1][..], &[0][..])
    );
}

#[test]
fn routine_that_ends_without_invalidating_makes_its_suspects_findings() {
    let before = Run::isolated()
        .used()
        .unmap(ADDRESS)
        .done(1, ADDRESS, PAGE, true);
    assert_eq!(before.ledger().findings(), []);

    assert_eq!(before.returned().kinds(), [Kind::StaleIotlb]);
}

#[test]
fn detached_table_makes_cached_accesses_stale() {
    let run = Run::isolated()
        .used()
        .entry(2, ADDRESS, 0)
        .returned()
        .done(1, ADDRESS, PAGE, true);

    assert_eq!(run.kinds(), [Kind::StaleIotlb]);
}

#[test]
fn stale_access_to_a_page_given_out_again_names_both_owners() {
    let findings = Run::isolated()
        .used()
        .cleared()
        .free(1)
        .allocate(2, PAGE, 1)
        .map(ADDRESS + 0x10_0000, PAGE)
        .done(1, ADDRESS, PAGE, true)
        .findings();

    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, Kind::StaleIotlb);
    assert_eq!(findings[0].allocation.as_ref().unwrap().id, AllocationId(2));
}

#[test]
fn fills_stand_in_for_tables_that_a_guest_writes_unseen() {
    let run = Run::isolated()
        .allocate(1, PAGE, 1)
        .then(Event::Fill {
            domain: DOMAIN,
            iova: Iova(ADDRESS),
            page: Gpa(PAGE << 12),
            size: 0x1000,
            entry: Gpa(0x10_0000),
            value: PAGE << 12 | 3,
            generation: 7,
        })
        .command(1, 3)
        .done(1, ADDRESS, PAGE, true)
        .free(1)
        .refused(1, ADDRESS);

    let findings = run.findings();

    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, Kind::DmaUseAfterFree);
    assert_eq!(at(&findings[0]).generation, Some(7));
}
