//! Making an input smaller that shows a defect.

use super::faults::{SIMPLER, simpler};
use super::program::Program;
use crate::error::ExploreError;

/// Most runs that one defect is worth.
const MAX_RUNS: u32 = 200;

/// The smallest that `shows` still says yes to, of those that were tried:
/// without some of its parts, its faults simpler, its data shorter and full
/// of zeroes.
pub(crate) fn minimise(
    mut program: Program,
    mut shows: impl FnMut(&Program) -> Result<bool, ExploreError>,
) -> Result<Program, ExploreError> {
    let mut left = MAX_RUNS;
    loop {
        let before = program.clone();
        for smaller in [
            without_faults,
            without_answers,
            without_early,
            without_power,
            without_choices,
            without_escapes,
            simpler_faults,
            shorter,
            zeroed,
        ] {
            let mut at = 0;
            // From the last part to the first; a part that went is the next's
            // place.
            while let Some(candidate) = smaller(&program, at) {
                if left == 0 {
                    return Ok(program);
                }
                if candidate == program {
                    at += 1;
                    continue;
                }
                left -= 1;
                if shows(&candidate)? {
                    program = candidate;
                } else {
                    at += 1;
                }
            }
        }
        if program == before {
            return Ok(program);
        }
    }
}

/// Without the answer that is `at` from the last; `None` behind the first.
fn without_answers(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let index = less.answers.len().checked_sub(at + 1)?;
    less.answers.remove(index);
    Some(less)
}

fn without_faults(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let index = less.faults.len().checked_sub(at + 1)?;
    less.faults.remove(index);
    Some(less)
}

fn simpler_faults(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let fault = less.faults.get_mut(at / SIMPLER)?;
    *fault = simpler(fault, at % SIMPLER);
    Some(less)
}

fn without_early(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let index = less.early.len().checked_sub(at + 1)?;
    less.early.remove(index);
    Some(less)
}

fn without_power(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let before = *less.power.iter().rev().nth(at)?;
    less.power.remove(&before);
    Some(less)
}

fn without_choices(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let number = *less.choices.keys().rev().nth(at)?;
    less.choices.remove(&number);
    Some(less)
}

fn without_escapes(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let index = less.escapes.len().checked_sub(at + 1)?;
    if less.escapes.len() > 1 {
        less.escapes.remove(index);
        // What came before a later Escape still does.
        let moved = |before: u8| before - u8::from(usize::from(before) > index);
        less.power = less.power.into_iter().map(moved).collect();
    }
    Some(less)
}

/// An Escape cut to nothing, a half, or by a byte: three tries for each.
fn shorter(program: &Program, at: usize) -> Option<Program> {
    let mut less = program.clone();
    let data = less.escapes.get_mut(at / 3)?;
    data.truncate(match at % 3 {
        0 => 0,
        1 => data.len() / 2,
        _ => data.len().saturating_sub(1),
    });
    Some(less)
}

/// Eight bytes of an Escape zeroed.
fn zeroed(program: &Program, mut at: usize) -> Option<Program> {
    let mut less = program.clone();
    for data in &mut less.escapes {
        let pieces = data.len().div_ceil(8);
        if at < pieces {
            data.iter_mut().skip(8 * at).take(8).for_each(|b| *b = 0);
            return Some(less);
        }
        at -= pieces;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use scenario::{Fault, SiteKind, What};

    #[test]
    fn the_fault_that_a_defect_needs_stays_in_its_simplest_form() {
        let needed = Fault::new(SiteKind::Interrupt, What::Lost);
        let program = Program {
            escapes: vec![Vec::new()],
            faults: vec![
                Fault::new(SiteKind::Fill, What::NoneCached),
                Fault {
                    after: Some("DxgkDdiEscape".to_owned()),
                    every: Some(3),
                    window: Some((5, 9)),
                    ..needed.clone()
                },
                Fault::new(SiteKind::Map, What::Fail),
            ],
            ..Program::default()
        };

        let small = minimise(program, |tried| {
            let lost = |fault: &Fault| fault.outcome == What::Lost;
            Ok(tried.faults.iter().any(lost))
        })
        .unwrap();

        let simplest = Fault {
            after: Some("DxgkDdiEscape".to_owned()),
            nth: Some(1),
            ..needed
        };
        assert_eq!(small.faults, [simplest]);
    }

    #[test]
    fn what_a_defect_does_not_need_goes() {
        let program = Program {
            escapes: vec![vec![1; 40], vec![2; 40], vec![3; 40]],
            choices: [(1, 2), (5, 1)].into(),
            ..Program::default()
        };

        let small = minimise(program, |tried| {
            let two = tried.escapes.iter().any(|e| e.len() >= 10 && e[9] == 2);
            Ok(two && tried.choices.contains_key(&5))
        })
        .unwrap();

        assert_eq!(small.choices, [(5, 1)].into());
        assert_eq!(small.escapes, [[0, 0, 0, 0, 0, 0, 0, 0, 2, 2]]);
    }
}
