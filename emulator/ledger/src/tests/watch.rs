//! What no table of the IOMMU shows: each defect and its healthy twin.

use super::*;
use crate::{Outcome as Became, Party, Step};
use journal::event::{MdlMapping, Segment};

const CAPS: u32 = 1 << 11;
const RESOURCE: u32 = 7;
/// A page of memory that dxgkrnl did not make.
const PLAIN: u64 = 0x2222;

impl Run {
    fn made(self, id: u32, kind: AllocationKind, first: u64, count: u64, requested: u64) -> Self {
        self.then(Event::Allocate(Allocation {
            id: AllocationId(id),
            kind,
            handle: 0,
            address: 0xffff_8000_0000_0000,
            pages: vec![PageRun {
                first: Pfn(first),
                count,
            }],
            requested,
            stack: StackId(1),
        }))
    }

    fn plain(self, kind: AllocationKind) -> Self {
        self.made(1, kind, PLAIN, 1, 1)
    }

    fn asked(self) -> Self {
        self.then(Event::Physical {
            address: 0xffff_8000_0000_0000,
            gpa: Gpa(PLAIN << 12),
            stack: StackId(6),
        })
    }

    fn caps(self, memory: u32) -> Self {
        self.then(Event::Caps { memory })
    }

    fn map_mdl(self, first: u64) -> Self {
        self.then(Event::MapMdl(MdlMapping {
            handle: 0x77,
            mdl: 0xffff_8000_0000_0000,
            pages: vec![PageRun {
                first: Pfn(first),
                count: 1,
            }],
            write: true,
            stack: StackId(7),
        }))
    }

    fn unmap_mdl(self) -> Self {
        self.then(Event::UnmapMdl {
            handle: 0x77,
            stack: StackId(8),
        })
    }

    fn exclusive(self, begun: bool) -> Self {
        self.then(Event::ExclusiveAccess { begun })
    }

    fn filled(self, iova: u64, page: u64) -> Self {
        self.then(Event::Fill {
            domain: DOMAIN,
            iova: Iova(iova),
            page: Gpa(page << 12),
            size: 0x1000,
            entry: Gpa(0x10_0000),
            value: page << 12 | 3,
            generation: 1,
        })
    }

    /// A command on the resource.
    fn works(self, context: u32) -> Self {
        let position = context as u16 - 1;
        self.doorbell(3, Some(context as u16))
            .take(context, position)
            .then(Event::Command {
                context: ContextId(context),
                name: NameId(0),
                detail: String::new(),
                resource: Some(RESOURCE),
            })
    }

    fn attached(self, context: u32, iova: u64) -> Self {
        self.works(context).then(Event::Backing {
            context: ContextId(context),
            resource: RESOURCE,
            segments: vec![Segment {
                iova: Iova(iova),
                length: 0x1000,
            }],
        })
    }

    fn detached(self) -> Self {
        self.then(Event::NoBacking {
            context: ContextId(0),
            resource: RESOURCE,
        })
    }

    fn reset(self) -> Self {
        self.then(Event::Name {
            id: NameId(9),
            text: "RESET".into(),
        })
        .then(Event::DeviceState {
            device: DEVICE,
            state: NameId(9),
        })
    }

    /// Freed as it should be, and the page given to allocation 2, mapped at
    /// the same address.
    fn reused(self) -> Self {
        self.unmap(ADDRESS)
            .invalidate(true)
            .free(1)
            .allocate(2, PAGE, 1)
            .map(ADDRESS, PAGE)
            .returned()
    }

    fn mapped(self) -> Self {
        self.allocate(1, PAGE, 1).map(ADDRESS, PAGE).returned()
    }
}

#[test]
fn physical_address_of_plain_memory_is_raw() {
    for kind in [
        AllocationKind::Pool,
        AllocationKind::MmMdl,
        AllocationKind::MmContiguous,
    ] {
        let findings = Run::isolated()
            .plain(kind)
            .asked()
            .command(1, 3)
            .refused(1, PLAIN << 12)
            .bug_check(PLAIN << 12, false)
            .findings();

        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].kind, Kind::DmaRawPhysicalAddress);
        let origin = at(&findings[0]).origin.as_ref().unwrap();
        assert_eq!(origin.stack[0], 0xffff_f800_0000_0006);
        assert!(findings[0].stop.as_ref().unwrap().seen);
    }
}

#[test]
fn address_of_a_former_mapping_is_raw_only_if_it_was_asked_for_since() {
    let run = || {
        Run::isolated()
            .allocate(9, PLAIN, 1)
            .map(PLAIN << 12, PLAIN)
            .unmap(PLAIN << 12)
            .invalidate(true)
            .free(9)
            .plain(AllocationKind::Pool)
    };

    assert_eq!(
        run().refused(1, PLAIN << 12).kinds(),
        [Kind::DmaUseAfterFree]
    );
    assert_eq!(
        run().asked().refused(1, PLAIN << 12).kinds(),
        [Kind::DmaRawPhysicalAddress]
    );
}

#[test]
fn without_isolation_plain_memory_is_raw_if_the_driver_promised_to_map_it() {
    for domain in ["passthrough", "isolation-forced"] {
        let run = |caps| {
            Run::in_domain(domain)
                .caps(caps)
                .plain(AllocationKind::Pool)
                .command(1, 3)
        };
        let access = |run: Run| run.done(1, PLAIN << 12, PLAIN, false);

        assert_eq!(access(run(CAPS)).kinds(), [Kind::DmaRawPhysicalAddress]);
        assert_eq!(access(run(0)).kinds(), []);
        assert_eq!(access(run(CAPS).map_mdl(PLAIN)).kinds(), []);
        assert_eq!(
            access(run(CAPS).map_mdl(PLAIN).unmap_mdl()).kinds(),
            [Kind::DmaRawPhysicalAddress]
        );
    }
}

#[test]
fn memory_that_was_never_the_drivers_is_reachable_by_identity_only() {
    let run = |domain, caps| {
        Run::in_domain(domain)
            .caps(caps)
            .command(1, 3)
            .done(1, 0x5000, 5, false)
    };
    let findings = run("isolation-forced", CAPS).findings();

    assert_eq!(findings[0].kind, Kind::DmaUnmapped);
    assert_eq!(at(&findings[0]).outcome, Became::WentThrough);
    assert!(findings[0].summary.contains("identity only"));
    assert_eq!(run("passthrough", CAPS).kinds(), [Kind::DmaUnmapped]);
    assert_eq!(run("isolation-forced", 0).kinds(), []);
    // An MDL of memory that is not tracked, such as the driver's own data.
    let mapped = Run::in_domain("passthrough").caps(CAPS).map_mdl(5);
    assert_eq!(mapped.done(1, 0x5000, 5, false).kinds(), []);
}

#[test]
fn forced_domain_maps_everything_and_leaves_nothing_mapped() {
    let run = Run::in_domain("isolation-forced")
        .allocate(1, PAGE, 1)
        .entry(2, (PAGE & !511) << 12, (PAGE & !511) << 12 | 0x83)
        .map(PAGE << 12, PAGE)
        .filled(PAGE << 12, PAGE)
        .command(1, 3)
        .done(1, PAGE << 12, PAGE, false)
        .free(1);

    assert_eq!(run.findings_so_far(), []);
    let findings = run.done(1, PAGE << 12, PAGE, true).findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, Kind::DmaUseAfterFree);
    assert_eq!(at(&findings[0]).outcome, Became::WentThrough);
}

#[test]
fn mdl_mappings_are_in_the_life_of_the_page() {
    let findings = Run::isolated()
        .plain(AllocationKind::Pool)
        .map(ADDRESS, PLAIN)
        .map_mdl(PLAIN)
        .returned()
        .command(1, 3)
        .done(1, ADDRESS, PLAIN, false)
        .unmap(ADDRESS)
        .invalidate(true)
        .unmap_mdl()
        .returned()
        .refused(1, ADDRESS)
        .findings();

    assert_eq!(findings[0].kind, Kind::DmaUnmapped);
    let mdl = at(&findings[0]).mdl.as_ref().unwrap();
    assert_eq!(mdl.mapped.stack[0], 0xffff_f800_0000_0007);
    assert_eq!(
        mdl.unmapped.as_ref().unwrap().stack[0],
        0xffff_f800_0000_0008
    );
    let moments = &findings[0].history.moments;
    let unmapped = |m: &crate::Moment| matches!(m.step, Step::MdlUnmapped { handle: 0x77, .. });
    assert!(moments.iter().any(unmapped));
}

#[test]
fn backing_whose_page_has_another_owner_is_reused_memory() {
    let run = Run::isolated().mapped().attached(1, ADDRESS).reused();
    let findings = run.works(2).done(2, ADDRESS + 8, PAGE, false).findings();

    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, Kind::DmaReusedMemory);
    let allocation = findings[0].allocation.as_ref().unwrap();
    assert_eq!(allocation.id, AllocationId(1));
    assert!(allocation.freed.is_some());
    assert_eq!(
        at(&findings[0]).reused_by.as_ref().unwrap().id,
        AllocationId(2)
    );
}

#[test]
fn backing_that_was_detached_or_attached_again_is_not() {
    let detached = Run::isolated().mapped().attached(1, ADDRESS).detached();
    let again = Run::isolated()
        .mapped()
        .attached(1, ADDRESS)
        .reused()
        .attached(2, ADDRESS);
    let another = Run::isolated()
        .mapped()
        .attached(1, ADDRESS)
        .reused()
        .command(2, 3);

    for run in [
        detached.reused().works(2).done(2, ADDRESS, PAGE, false),
        again.done(2, ADDRESS, PAGE, false),
        another.done(2, ADDRESS, PAGE, false),
    ] {
        assert_eq!(run.kinds(), []);
    }
}

#[test]
fn queue_whose_ring_has_another_owner_is_reused_memory() {
    let area = Segment {
        iova: Iova(ADDRESS),
        length: 0x100,
    };
    let run = || {
        Run::isolated()
            .mapped()
            .then(Event::Queue {
                device: DEVICE,
                queue: 0,
                areas: [area; 3],
            })
            .reused()
    };

    assert_eq!(
        run().done(0, ADDRESS, PAGE, false).kinds(),
        [Kind::DmaReusedMemory]
    );
    assert_eq!(run().done(0, ADDRESS + 0x200, PAGE, false).kinds(), []);
    assert_eq!(run().reset().done(0, ADDRESS, PAGE, false).kinds(), []);
}

#[test]
fn a_reset_takes_the_backing_of_every_resource() {
    let run = || Run::isolated().mapped().attached(1, ADDRESS);
    let used = |run: Run| run.reused().works(2).done(2, ADDRESS, PAGE, false);

    assert_eq!(used(run()).kinds(), [Kind::DmaReusedMemory]);
    assert_eq!(used(run().reset()).kinds(), []);
}

#[test]
fn interrupt_range_is_no_memory() {
    for address in [0xfee0_0000, 0xfeef_ffff] {
        let run = Run::isolated().used().refused(1, address);
        assert_eq!(run.kinds(), [Kind::DmaInterruptRange]);
    }
    for address in [0xfedf_ffff, 0xfef0_0000] {
        let run = Run::isolated().used().refused(1, address);
        assert_eq!(run.kinds(), [Kind::DmaUnmapped]);
    }
}

#[test]
fn exclusive_access_forbids_every_access_between_its_ends() {
    let run = |begun: bool| {
        Run::isolated()
            .used()
            .exclusive(true)
            .exclusive(begun)
            .done(1, ADDRESS, PAGE, true)
    };

    assert_eq!(run(true).kinds(), [Kind::ExclusiveAccessViolation]);
    assert_eq!(run(false).kinds(), []);
    let refused = Run::isolated()
        .used()
        .exclusive(true)
        .refused(1, ADDRESS)
        .bug_check(ADDRESS, false)
        .findings();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].kind, Kind::ExclusiveAccessViolation);
    assert!(refused[0].stop.as_ref().unwrap().seen);
}

#[test]
fn free_without_invalidating_what_is_cached_is_the_systems() {
    let run = |fill: bool, invalidate: Option<Scope>| {
        let mut run = Run::isolated().mapped().command(1, 3);
        if fill {
            run = run.filled(ADDRESS, PAGE);
        }
        run = run.done(1, ADDRESS, PAGE, false).unmap(ADDRESS);
        if let Some(scope) = invalidate {
            run = run.invalidate_scope(scope, true);
        }
        run.free(1)
    };
    let pages = |page: u64| {
        Some(Scope::Pages {
            domain: DOMAIN,
            iova: Iova(page),
            count: 1,
        })
    };

    let findings = run(true, None).findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, Kind::MissingInvalidation);
    assert_eq!(findings[0].blame[0].party, Party::OperatingSystem);
    let wrong = run(true, pages(ADDRESS + 0x1000));
    assert_eq!(wrong.kinds(), [Kind::MissingInvalidation]);
    for healthy in [
        run(false, None),
        run(true, pages(ADDRESS)),
        run(true, Some(Scope::Domain(DOMAIN))),
        run(true, Some(Scope::Global)),
    ] {
        assert_eq!(healthy.kinds(), []);
    }
}

#[test]
fn address_past_a_partial_mdl_is_that_allocations() {
    let run = |requested| Run::isolated().made(1, AllocationKind::MmMdl, PLAIN, 2, requested);
    let end = 0xffff_ffff_ffff_f000;

    let findings = run(4).refused(1, end).findings();
    assert_eq!(findings[0].kind, Kind::PartialAllocationIgnored);
    assert_eq!(findings[0].allocation.as_ref().unwrap().id, AllocationId(1));
    assert!(findings[0].summary.contains("4 pages were asked for, 2"));
    assert_eq!(run(2).refused(1, end).kinds(), [Kind::DmaUnmapped]);
    assert_eq!(run(4).free(1).refused(1, end).kinds(), [Kind::DmaUnmapped]);
}
