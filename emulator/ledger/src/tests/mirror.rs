//! A domain that another remapping unit tells.

use super::*;

fn map(run: Run, iova: u64, pages: u64, page: u64, write: bool) -> Run {
    run.then(Event::Map {
        device: DEVICE,
        iova: Iova(iova),
        length: pages << 12,
        target: Some(Gpa(page << 12)),
        read: true,
        write,
        generation: 1,
    })
}

fn unmap(run: Run, iova: u64, length: u64) -> Run {
    run.then(Event::Unmap {
        device: DEVICE,
        iova: Iova(iova),
        length,
        dropped: 0,
    })
}

fn summary(run: Run) -> (Kind, String) {
    let found = run.refused(1, ADDRESS + 0x1000).findings();
    assert_eq!(found.len(), 1);
    (found[0].kind, found[0].summary.clone())
}

fn guest() -> Run {
    Run::in_domain("guest")
}

#[test]
fn what_was_never_mapped_is_said_so() {
    let (kind, said) = summary(map(guest(), ADDRESS, 1, PAGE, true));
    assert_eq!(kind, Kind::DmaUnmapped);
    assert!(said.contains("never mapped"), "{said}");
}

#[test]
fn what_was_unmapped_is_said_so_however_it_was() {
    for (start, length) in [(ADDRESS + 0x1000, 0x1000), (ADDRESS, 0x4000), (0, !0xfff)] {
        let run = map(guest(), ADDRESS, 4, PAGE, true);
        let (kind, said) = summary(unmap(run, start, length));
        assert_eq!(kind, Kind::DmaUnmapped);
        assert!(said.contains("no longer mapped"), "{start:#x}: {said}");
    }
}

#[test]
fn an_unmap_beside_leaves_the_mapping() {
    let run = map(guest(), ADDRESS, 4, PAGE, true);
    let (_, said) = summary(unmap(run, ADDRESS + 0x2000, 0x1000));
    assert!(said.contains("the mapping does not allow it"), "{said}");
}
