//! What of the past counts for the future, and what does not.

use super::*;
use crate::Ledger;
use journal::event::Segment;

const RESOURCE: u32 = 7;

fn digest(run: Run) -> u128 {
    let mut ledger = Ledger::new();
    for record in &run.records {
        ledger.push(record);
    }
    ledger.digest()
}

/// Begin without the usual stacks: the runs intern their own.
fn bare() -> Run {
    let begin = Begin {
        domain: "passthrough".into(),
        device: DEVICE,
        ..Begin::default()
    };
    Run::default().then(Event::Begin(begin))
}

impl Run {
    fn stack(self, id: u32, frames: &[u64]) -> Self {
        self.then(Event::Stack {
            id: StackId(id),
            frames: frames.to_vec(),
        })
    }

    fn backed(self) -> Self {
        self.then(Event::Backing {
            context: ContextId(1),
            resource: RESOURCE,
            segments: vec![Segment {
                iova: Iova(PAGE << 12),
                length: 4096,
            }],
        })
    }

    fn freed_at(self, id: u32, stack: u32) -> Self {
        self.then(Event::Free {
            allocation: AllocationId(id),
            stack: StackId(stack),
        })
    }
}

#[test]
fn times_and_the_numbers_of_stacks_do_not_count() {
    let stacks = |a: u32, b: u32| bare().stack(a, &[1, 2]).stack(b, &[3]);
    let life = |run: Run, made: u32, freed: u32| {
        let mut run = run.allocate(1, PAGE, 1);
        if let Some(Event::Allocate(new)) = run.records.last_mut().map(|r| &mut r.event) {
            new.stack = StackId(made);
        }
        run.freed_at(1, freed)
    };
    let one = life(stacks(1, 2), 1, 2);
    let mut other = life(stacks(2, 1), 2, 1);
    for record in &mut other.records {
        record.time += 500;
    }

    assert_eq!(digest(one), digest(other));
}

#[test]
fn what_later_findings_depend_on_counts() {
    let made = || Run::in_domain("passthrough").allocate(1, PAGE, 1);
    let reused = |run: Run| run.freed_at(1, 2).allocate(2, PAGE, 1);
    let rows = [
        (
            "whose a backing was when it was attached",
            reused(made().backed()),
            reused(made()).backed(),
        ),
        ("who owns a page", made(), reused(made())),
        (
            "where it was freed",
            made().freed_at(1, 2),
            made().freed_at(1, 3),
        ),
        (
            "whether it isolates",
            made(),
            made().then(Event::Caps { memory: 1 << 11 }),
        ),
        (
            "which command a context is",
            made().command(1, 4),
            made().doorbell(4, Some(1)),
        ),
        (
            "whether the device must be quiet",
            made(),
            made().then(Event::ExclusiveAccess { begun: true }),
        ),
    ];
    for (what, one, other) in rows {
        assert_ne!(digest(one), digest(other), "{what}");
    }
}

#[test]
fn a_terse_ledger_finds_the_same() {
    let run = Run::isolated()
        .used()
        .cleared()
        .free(1)
        .done(1, ADDRESS, PAGE, true);
    let mut whole = Ledger::new();
    let mut terse = Ledger::terse();
    for record in &run.records {
        whole.push(record);
        terse.push(record);
    }

    let kinds = |of: &Ledger| of.findings().iter().map(|f| f.kind).collect::<Vec<_>>();
    assert!(!whole.findings().is_empty());
    assert_eq!(kinds(&whole), kinds(&terse));
    assert_eq!(whole.digest(), terse.digest());
    assert!(!whole.findings()[0].history.moments.is_empty());
    assert!(terse.findings()[0].history.moments.is_empty());
}
