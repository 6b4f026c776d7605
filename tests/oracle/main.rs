//! The remapping unit against another implementation of the same
//! specification: one script of steps drives QEMU's intel-iommu through its
//! qtest socket and [`iommu::Unit`], and what can be seen of each step is
//! compared. `scripts/oracle` runs it.
//!
//! Agreement with QEMU proves nothing where QEMU itself leaves the
//! specification; [`differences`] lists where it does, and where our unit's
//! capabilities differ, each with its reason.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a tool for developers

mod bench;
mod differences;
mod ours;
mod qemu;
#[path = "../support/qtest.rs"]
mod qtest;
mod script;
mod target;

use bench::Row;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let program = arguments
        .next()
        .unwrap_or_else(|| "qemu-system-x86_64".to_owned());
    let ours = script::run(&mut ours::Ours::new());
    let mut qemu = match qemu::Qemu::start(&program) {
        Ok(qemu) => qemu,
        Err(why) => {
            eprintln!("cannot start {program}: {why}");
            return ExitCode::from(3);
        }
    };
    let theirs = script::run(&mut qemu);
    assert_eq!(ours.len(), theirs.len(), "the script depends on its target");
    report(&ours, &theirs)
}

/// Print the table; fails if a difference has no explanation.
fn report(ours: &[Row], theirs: &[Row]) -> ExitCode {
    let (mut same, mut explained, mut unexplained) = (0, Vec::new(), 0);
    let mut case = "";
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!((ours.case, &ours.step), (theirs.case, &theirs.step));
        if ours.case != case {
            case = ours.case;
            println!("\n{case}");
        }
        let step = &ours.step;
        if ours.seen == theirs.seen {
            same += 1;
            println!("  {step:<58} {}", ours.seen);
            continue;
        }
        let why = differences::reason(ours, theirs);
        let mark = match why {
            Some((letter, _)) => letter,
            None => "!",
        };
        println!("{mark} {step:<58} ours: {}", ours.seen);
        println!("{mark} {:<58} QEMU: {}", "", theirs.seen);
        match why {
            Some(why) if explained.contains(&why) => {}
            Some(why) => explained.push(why),
            None => unexplained += 1,
        }
    }
    let differs = |case: &str, step: &str| {
        let mut pairs = ours.iter().zip(theirs);
        pairs.any(|(a, b)| a.case == case && a.step == step && a.seen != b.seen)
    };
    for (case, step) in differences::gone(differs) {
        println!("\nno longer different: {case}: {step}");
    }
    explained.sort_unstable();
    println!("\nwhy they differ");
    for (letter, reason) in &explained {
        println!("  {letter}  {reason}");
    }
    let other = ours.len() - same - unexplained;
    println!("\n{same} steps agree, {other} differ for a known reason, {unexplained} unexplained");
    ExitCode::from(u8::from(unexplained != 0))
}
