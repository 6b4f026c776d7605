//! The script: the same calls in the same order for every target.

mod faults;
mod queue;
mod registers;
mod staleness;
mod walk;

use crate::bench::{Bench, Row};
use crate::target::Target;

pub fn run(target: &mut dyn Target) -> Vec<Row> {
    let mut bench = Bench::new(target);
    registers::run(&mut bench);
    bench.reset("walk");
    bench.teach();
    walk::run(&mut bench);
    staleness::run(&mut bench);
    queue::run(&mut bench);
    faults::run(&mut bench);
    queue::outside(&mut bench);
    bench.rows
}
