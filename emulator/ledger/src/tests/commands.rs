//! Which doorbell submitted which command.

use super::*;

/// Stack of the submission that the finding of `context` shows.
fn submitted_by(run: Run, context: u32) -> Option<u64> {
    let findings = run.refused(context, 0x9000).findings();
    let command = at(&findings[0]).command.clone().unwrap();
    command.submitted.map(|place| place.stack[0] & 0xff)
}

#[test]
fn command_belongs_to_the_doorbell_whose_range_holds_it() {
    let bells = || {
        Run::isolated()
            .doorbell(3, Some(2))
            .doorbell(4, Some(2))
            .doorbell(5, Some(5))
    };
    let rows = [
        (0, Some(3)),
        (1, Some(3)),
        (2, Some(5)),
        (4, Some(5)),
        (5, None),
    ];
    for (position, stack) in rows {
        assert_eq!(submitted_by(bells().take(1, position), 1), stack);
    }
}

#[test]
fn range_over_the_wrap_of_the_index_holds_both_sides() {
    let bells = || {
        Run::isolated()
            .doorbell(3, Some(0xfffe))
            .doorbell(4, Some(1))
            .doorbell(5, Some(2))
    };
    let rows = [(0xfffd, 3), (0xfffe, 4), (0xffff, 4), (0, 4), (1, 5)];
    for (position, stack) in rows {
        assert_eq!(
            submitted_by(bells().take(1, position), 1),
            Some(stack),
            "{position:#x}"
        );
    }
}

#[test]
fn command_taken_before_its_doorbell_learns_of_it() {
    let run = Run::isolated()
        .take(1, 0)
        .refused(1, 0x9000)
        .doorbell(6, Some(1));

    let findings = run.findings();

    let command = at(&findings[0]).command.clone().unwrap();
    assert_eq!(command.submitted.unwrap().stack[0] & 0xff, 6);
}

#[test]
fn doorbell_with_unread_index_is_the_last_resort() {
    let run = Run::isolated()
        .doorbell(3, Some(1))
        .doorbell(4, None)
        .take(1, 7);

    assert_eq!(submitted_by(run, 1), Some(4));
}

#[test]
fn command_before_all_doorbells_has_no_stack() {
    assert_eq!(submitted_by(Run::isolated().take(1, 0), 1), None);
}

#[test]
fn queue_begins_anew_after_a_reset() {
    let run = Run::isolated()
        .doorbell(3, Some(5))
        .then(Event::Name {
            id: NameId(9),
            text: "RESET".into(),
        })
        .then(Event::DeviceState {
            device: DEVICE,
            state: NameId(9),
        })
        .doorbell(4, Some(7))
        .take(1, 2);

    assert_eq!(submitted_by(run, 1), Some(4));
}
