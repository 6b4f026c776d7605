//! Healthy runs: none of these is a finding.

use super::*;

#[test]
fn healthy_runs_have_no_findings() {
    let rows: Vec<(&str, Run)> = vec![
        ("use while owned", Run::isolated().used()),
        (
            "clear, invalidate, free",
            Run::isolated().used().cleared().invalidate(true).free(1),
        ),
        (
            "cached use of an unchanged entry",
            Run::isolated().used().done(1, ADDRESS, PAGE, true),
        ),
        (
            "entry rewritten with the same page",
            Run::isolated()
                .used()
                .map(ADDRESS, PAGE)
                .returned()
                .done(1, ADDRESS, PAGE, true),
        ),
        (
            "cached use while the routine is still to invalidate",
            Run::isolated()
                .used()
                .cleared()
                .done(1, ADDRESS, PAGE, true)
                .invalidate(true)
                .free(1),
        ),
        (
            "landing before the free",
            Run::isolated()
                .used()
                .issue(1, ADDRESS, PAGE)
                .cleared()
                .land(true)
                .invalidate(true)
                .free(1),
        ),
        (
            "flight given up by a reset",
            Run::isolated()
                .used()
                .issue(1, ADDRESS, PAGE)
                .then(Event::Cancelled { token: TokenId(1) })
                .cleared()
                .invalidate(true)
                .free(1),
        ),
        (
            "flight to another allocation",
            Run::isolated()
                .used()
                .allocate(2, 0x8000, 1)
                .map(0x9000_0000, 0x8000)
                .issue(1, 0x9000_0000, 0x8000)
                .cleared()
                .invalidate(true)
                .free(1)
                .land(false),
        ),
        (
            "page given out again and mapped again",
            Run::isolated()
                .used()
                .cleared()
                .invalidate(true)
                .free(1)
                .allocate(2, PAGE, 4)
                .map(ADDRESS, PAGE)
                .done(1, ADDRESS, PAGE, false)
                .done(1, ADDRESS, PAGE, true),
        ),
        (
            "passthrough: memory that is not tracked",
            Run::in_domain("passthrough").done(0, 0x5000, 5, true),
        ),
        (
            "passthrough: tables do not count",
            Run::in_domain("passthrough").used().free(1),
        ),
        (
            "table detached and attached again",
            Run::isolated()
                .used()
                .entry(2, ADDRESS, 0)
                .entry(2, ADDRESS, 0x10_1000 | 3)
                .returned()
                .done(1, ADDRESS, PAGE, true),
        ),
        (
            "memory in a large leaf",
            Run::isolated()
                .allocate(1, PAGE, 1)
                .entry(2, ADDRESS, (PAGE & !511) << 12 | 0x83)
                .returned()
                .done(1, ADDRESS + ((PAGE & 511) << 12), PAGE, true),
        ),
        (
            "tables written unseen",
            Run::isolated()
                .allocate(1, PAGE, 1)
                .done(1, ADDRESS, PAGE, true),
        ),
    ];
    for (name, run) in rows {
        assert_eq!(run.kinds(), [], "{name}");
    }
}

#[test]
fn device_with_a_passthrough_context_is_not_judged_by_tables() {
    let context = |high: bool, new| Event::TableWrite {
        address: Gpa(0x2000 + 8 * u64::from(high)),
        old: 0,
        new,
        table: Table::Context { device: DEVICE },
    };
    let run = Run::isolated()
        .then(context(true, u64::from(DOMAIN) << 8 | 2))
        .then(context(false, 2 << 2 | 1))
        .used()
        .free(1);

    assert_eq!(run.kinds(), []);
}

#[test]
fn facts_add_up() {
    let ledger = Run::isolated().used().allocate(2, 0x9999, 3).end();
    let facts = ledger.facts();

    assert_eq!((facts.allocations, facts.pages), (2, 7));
    assert_eq!((facts.live_allocations, facts.live_pages), (2, 7));
    assert_eq!((facts.accesses, facts.bytes_read), (1, 64));
    assert_eq!(facts.time, (ledger.facts().events - 1) * 1000);
    let live = ledger.live(1);
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].id, AllocationId(1));
}

#[test]
fn restored_ledger_goes_on_as_the_saved_one() {
    let mut ledger = Run::isolated().used().cleared().free(1).ledger();
    let saved = ledger.save();
    let stale = Run::isolated().done(1, ADDRESS, PAGE, true);
    let last = stale.records.last().unwrap();
    ledger.push(last);
    let found = ledger.findings().to_vec();
    assert_eq!(found.len(), 2);

    ledger.restore(&saved);

    assert_eq!(ledger.findings(), []);
    ledger.push(last);
    assert_eq!(ledger.findings(), found);
}
