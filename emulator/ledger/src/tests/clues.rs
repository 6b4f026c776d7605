//! What led to a finding, and what several findings have in common.

use super::*;
use crate::{ClueKind, Outcome as Became, QueuePart, Reach};
use journal::event::{Breach, Certainty, MdlMapping, Segment, Subject};

const MDL: u64 = 0xffff_8000_0007_0000;

impl Run {
    fn called(self, name: &str, arguments: &[u64], irql: u8, stack: u32) -> Self {
        self.then(Event::Name {
            id: NameId(20),
            text: name.into(),
        })
        .then(Event::Call {
            function: NameId(20),
            arguments: arguments.to_vec(),
            irql,
            thread: 0,
            stack: StackId(stack),
        })
    }

    fn back(self, value: u64) -> Self {
        self.then(Event::Return {
            function: NameId(20),
            value,
        })
    }

    fn entered(self, irql: u8) -> Self {
        self.then(Event::Name {
            id: NameId(21),
            text: "InterruptRoutine".into(),
        })
        .then(Event::Enter {
            routine: NameId(21),
            address: 0xffff_f800_0000_0077,
            arguments: vec![],
            irql,
            thread: 0,
        })
    }

    fn left(self) -> Self {
        self.then(Event::Leave {
            routine: NameId(21),
            value: 1,
        })
    }

    fn breach(self, finding: &str, stack: u32, allocation: Option<u32>, address: u64) -> Self {
        self.then(Event::Breach(Breach {
            rule: "a-rule".into(),
            finding: finding.into(),
            reason: "so".into(),
            certainty: Certainty::Inferred,
            status: None,
            subject: Subject {
                allocation: allocation.map(AllocationId),
                address,
            },
            stack: StackId(stack),
        }))
    }

    fn queue(self, first: u64) -> Self {
        let area = |index: u64| Segment {
            iova: Iova(first + index * 0x100),
            length: 0x100,
        };
        self.then(Event::Trap {
            kind: TrapKind::MmioWrite,
            address: 0,
            value: 1,
            size: 2,
            stack: StackId(6),
        })
        .then(Event::Queue {
            device: DEVICE,
            queue: 1,
            areas: [area(0), area(1), area(2)],
        })
    }

    fn descriptor(self, context: u32, iova: u64, page: u64, length: u32) -> Self {
        self.then(Event::Access {
            context: ContextId(context),
            device: DEVICE,
            iova: Iova(iova),
            length,
            write: false,
            outcome: Outcome::Done {
                gpa: Gpa(page << 12 | iova & 0xfff),
                generation: 1,
                cached: true,
            },
        })
    }

    fn only(self) -> Finding {
        let findings = self.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings[0].clone()
    }
}

fn stack_of(finding: &Finding, kind: ClueKind) -> Option<u64> {
    Some(finding.clue(kind)?.place.stack[0] & 0xff)
}

#[test]
fn wrong_irql_tells_the_call_that_raised_it() {
    let run = Run::isolated()
        .called("KeAcquireSpinLockRaiseToDpc", &[1], 0, 3)
        .back(0)
        .called("Other", &[], 2, 4)
        .back(0)
        // An interrupt meanwhile changes nothing.
        .entered(9)
        .called("Third", &[], 9, 5)
        .back(0)
        .left()
        .called("Wait", &[], 2, 5)
        .breach("wrong-irql", 5, None, 0);

    let found = run.only();

    assert_eq!(stack_of(&found, ClueKind::Raised), Some(3));
    let text = &found.clue(ClueKind::Raised).unwrap().text;
    assert!(text.contains("from 0 to 2"), "{text}");
}

#[test]
fn wrong_irql_in_a_routine_that_windows_calls_so_names_it() {
    let run = Run::isolated()
        .called("Before", &[], 0, 3)
        .entered(9)
        .called("Wait", &[], 9, 5)
        .breach("wrong-irql", 5, None, 0);

    let found = run.only();

    assert_eq!(stack_of(&found, ClueKind::Raised), Some(0x77));
    let text = &found.clue(ClueKind::Raised).unwrap().text;
    assert_eq!(text, "Windows called InterruptRoutine at IRQL 9");
}

#[test]
fn write_of_cr8_is_told_and_what_was_lowered_is_not() {
    let raised = Run::isolated()
        .called("Before", &[], 0, 3)
        .back(0)
        .then(Event::Trap {
            kind: TrapKind::Irql,
            address: 0,
            value: 2,
            size: 4,
            stack: StackId(7),
        })
        .called("Wait", &[], 2, 5);
    let lowered = Run::isolated()
        .called("KeAcquireSpinLockRaiseToDpc", &[1], 0, 3)
        .called("KeReleaseSpinLock", &[1], 2, 4)
        .called("Wait", &[], 0, 5);

    let found = raised.breach("wrong-irql", 5, None, 0).only();
    assert_eq!(stack_of(&found, ClueKind::Raised), Some(7));
    assert_eq!(lowered.breach("wrong-irql", 5, None, 0).only().clues, []);
}

#[test]
fn address_in_a_ring_tells_which_and_who_set_it() {
    let run = Run::isolated().used().queue(0xfee0_0000);

    let found = run.refused(1, 0xfee0_0204).only();

    let area = at(&found).area.unwrap();
    assert_eq!((area.queue, area.part), (1, QueuePart::UsedRing));
    assert_eq!(stack_of(&found, ClueKind::QueueEnabled), Some(6));
    assert!(found.summary.contains("in queue 1's used ring"));
}

#[test]
fn freed_ring_is_blamed_on_the_queue_that_was_enabled() {
    let run = Run::isolated().used().queue(ADDRESS + 0x1000).cleared();

    let found = run.free(1).refused(0, ADDRESS + 0x1100).only();

    assert_eq!(found.kind, Kind::DmaUseAfterFree);
    let area = at(&found).area.unwrap();
    assert_eq!(area.part, QueuePart::AvailableRing);
    assert!(found.blame[0].reason.contains("queue 1 was still enabled"));
    assert_eq!(stack_of(&found, ClueKind::QueueEnabled), Some(6));
}

#[test]
fn descriptor_read_for_a_command_is_one_of_the_queue() {
    let run = || {
        let run = Run::isolated().allocate(1, PAGE, 1).map(ADDRESS, PAGE);
        let run = run.queue(ADDRESS).unmap(ADDRESS).invalidate(true).free(1);
        let run = run.allocate(2, PAGE, 1).map(ADDRESS, PAGE);
        run.command(1, 3)
    };

    assert_eq!(
        run().descriptor(1, ADDRESS + 0x20, PAGE, 16).kinds(),
        [Kind::DmaReusedMemory]
    );
    // A buffer that is no descriptor may lie there.
    for (offset, length) in [(0x20, 24), (0x28, 16), (0x210, 16)] {
        let run = run().descriptor(1, ADDRESS + offset, PAGE, length);
        assert_eq!(run.kinds(), [], "{offset:#x} {length}");
    }
}

#[test]
fn backing_is_told_with_the_command_that_gave_it() {
    let command = |context| Event::Command {
        context: ContextId(context),
        name: NameId(0),
        detail: String::new(),
        resource: Some(7),
    };
    let backing = Event::Backing {
        context: ContextId(1),
        resource: 7,
        segments: vec![Segment {
            iova: Iova(ADDRESS),
            length: 0x4000,
        }],
    };
    let run = Run::isolated().used().then(command(1)).then(backing);
    let run = run
        .command(2, 5)
        .then(command(2))
        .cleared()
        .invalidate(true);

    let found = run.free(1).refused(2, ADDRESS + 0x1000).only();

    assert_eq!(stack_of(&found, ClueKind::Attached), Some(3));
}

#[test]
fn freed_mdl_is_told_until_something_is_there_again() {
    let freed = || Run::isolated().called("ExFreePool", &[MDL], 0, 4).back(0);
    let used = |run: Run| {
        run.called("MmFreePagesFromMdl", &[MDL], 0, 5)
            .breach("mdl-use-after-free", 5, None, MDL)
            .only()
    };

    assert_eq!(stack_of(&used(freed()), ClueKind::Released), Some(4));
    let again = freed().called("IoAllocateMdl", &[0], 0, 6).back(MDL);
    assert_eq!(used(again).clues, []);
}

#[test]
fn pages_freed_while_mapped_for_user_mode_tell_the_mapping() {
    let run = |mode: u64, address: u64| {
        Run::isolated()
            .called("MmMapLockedPagesSpecifyCache", &[MDL, mode], 0, 4)
            .back(address)
            .called("MmFreePagesFromMdl", &[MDL], 0, 5)
            .breach("mapped-after-free", 5, None, MDL)
            .only()
    };

    let found = run(0xabcd_ef01, 0x2_0000);
    assert_eq!(stack_of(&found, ClueKind::UserMapped), Some(4));
    assert_eq!(run(0, 0x2_0000).clues, []);
    assert_eq!(run(1, 0).clues, []);
}

#[test]
fn refused_right_tells_how_the_mdl_was_locked() {
    let run = |operation: u64| {
        let run = Run::isolated()
            .allocate(1, PAGE, 1)
            .called("MmProbeAndLockPages", &[MDL, 0, operation], 0, 4)
            .back(0)
            .entry(1, ADDRESS, PAGE << 12 | 1)
            .then(Event::MapMdl(MdlMapping {
                handle: 0x77,
                mdl: MDL,
                pages: vec![PageRun {
                    first: Pfn(PAGE),
                    count: 1,
                }],
                write: false,
                stack: StackId(7),
            }));
        run.command(1, 3)
            .then(Event::Access {
                context: ContextId(1),
                device: DEVICE,
                iova: Iova(ADDRESS),
                length: 8,
                write: true,
                outcome: Outcome::Refused,
            })
            .only()
    };

    let found = run(0);
    assert_eq!(found.kind, Kind::DmaPermission);
    assert_eq!(stack_of(&found, ClueKind::LockedForReading), Some(4));
    assert_eq!(run(2).clue(ClueKind::LockedForReading), None);
}

#[test]
fn one_mistake_with_several_allocations_is_one_finding() {
    let mut run = Run::isolated();
    for id in 1..=3 {
        let page = PAGE + u64::from(id);
        run = run.allocate(id, page, 1).free(id);
        run = run.breach("double-free", 5, Some(id), u64::from(id));
    }
    let elsewhere = run.breach("double-free", 6, Some(3), 3);

    let findings = elsewhere.findings();

    assert_eq!(findings.len(), 2);
    assert_eq!((findings[0].count, findings[0].allocations), (3, 3));
    assert_eq!(findings[0].allocation.as_ref().unwrap().id, AllocationId(1));
    assert_eq!((findings[1].count, findings[1].allocations), (1, 1));
}

#[test]
fn allocations_of_unknown_origin_are_told_apart() {
    let made = |run: Run, id: u32| {
        run.then(Event::Allocate(Allocation {
            id: AllocationId(id),
            kind: AllocationKind::Pool,
            handle: 0,
            address: 0,
            pages: vec![PageRun {
                first: Pfn(PAGE + u64::from(id)),
                count: 1,
            }],
            requested: 1,
            stack: StackId(0),
        }))
        .breach("double-free", 5, Some(id), 0)
    };

    let findings = made(made(Run::isolated(), 1), 2).findings();

    assert_eq!(findings.len(), 2);
}

#[test]
fn command_in_exclusive_access_is_one_finding() {
    let run = Run::isolated()
        .used()
        .then(Event::ExclusiveAccess { begun: true })
        .doorbell(5, Some(2))
        .done(0, ADDRESS + 0x1000, PAGE + 1, true)
        .take(2, 1)
        .done(2, ADDRESS + 0x2000, PAGE + 2, true)
        .done(0, ADDRESS + 0x1000, PAGE + 1, true)
        .done(2, ADDRESS + 0x3000, PAGE + 3, true);

    let found = run.only();

    assert_eq!(found.kind, Kind::ExclusiveAccessViolation);
    assert_eq!(found.count, 4);
    assert_eq!(at(&found).outcome, Became::WentThrough);
    let command = found.command().unwrap();
    assert_eq!(command.context, ContextId(2));
    assert_eq!(command.submitted.as_ref().unwrap().stack[0] & 0xff, 5);
}

#[test]
fn two_commands_in_exclusive_access_are_two_findings() {
    let run = Run::isolated()
        .used()
        .then(Event::ExclusiveAccess { begun: true })
        .command(2, 5)
        .done(2, ADDRESS, PAGE, true)
        .command(3, 6)
        .done(3, ADDRESS, PAGE, true);

    assert_eq!(run.kinds(), [Kind::ExclusiveAccessViolation; 2]);
}

#[test]
fn memory_that_was_never_mapped_has_a_mark_of_its_own() {
    let run = Run::isolated().used().then(Event::Allocate(Allocation {
        id: AllocationId(2),
        kind: AllocationKind::Pool,
        handle: 0,
        address: 0xffff_8000_0009_0000,
        pages: vec![PageRun {
            first: Pfn(0x2222),
            count: 2,
        }],
        requested: 2,
        stack: StackId(1),
    }));

    let found = run.refused(1, 0x0222_2000).only();

    assert_eq!(found.kind, Kind::DmaRawPhysicalAddress);
    let map = &at(&found).surroundings;
    let own = map.pages.iter().filter(|page| page.reach == Reach::Never);
    assert!(own.clone().all(|page| page.same));
    assert_eq!(own.count(), 2);
}
