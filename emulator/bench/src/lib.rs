//! What the benchmarks of several crates share: the row they print, and
//! measuring contenders in turns. No crate depends on it but for its
//! benchmarks; the binary of this package makes one file and a table of their
//! rows, for `scripts/bench`.
#![forbid(unsafe_code)]

mod compare;
mod results;
mod row;

pub use compare::compare;
pub use results::{Host, Results};
pub use row::{Goal, Peer, Row};

use std::time::Instant;

/// Rounds of a race: short, and taken in turn, so that what else the host
/// does falls on all contenders alike.
const ROUNDS: usize = 48;

/// Nanoseconds an operation of each contender. A contender does `operations`
/// in a call and is told the round's number.
pub fn race<const N: usize>(operations: usize, contenders: [&mut dyn FnMut(usize); N]) -> [f64; N] {
    race_rounds(ROUNDS, operations, contenders)
}

/// The same with so many rounds: for contenders that take long.
pub fn race_rounds<const N: usize>(
    rounds: usize,
    operations: usize,
    contenders: [&mut dyn FnMut(usize); N],
) -> [f64; N] {
    let mut contenders = contenders;
    let mut times = [const { Vec::new() }; N];
    for round in 0..rounds.max(1) {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            contender(round);
            times.push(start.elapsed().as_nanos() as f64 / operations as f64);
        }
    }
    times.map(|mut times| lower_quartile(&mut times))
}

/// The value that a quarter of `values` do not exceed: what else the host
/// does only ever adds time. 0 if there are none.
pub fn lower_quartile(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 4).copied().unwrap_or_default()
}

/// Print a benchmark's rows: a line each on standard error as a person wants
/// them, JSON on standard output.
pub fn print(rows: &[Row]) {
    eprint!("{}", row::table(rows));
    match serde_json::to_string_pretty(rows) {
        Ok(text) => println!("{text}"),
        // A number that JSON has no way to write.
        Err(error) => eprintln!("cannot write the rows: {error}"),
    }
}
