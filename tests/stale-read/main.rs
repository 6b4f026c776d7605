//! A driver that unmaps the pages of a resource, and forgets to take them
//! from the device: the same sequence of operations on QEMU's own virtio-gpu
//! and on ours, in one machine, behind one remapping unit. QEMU's shows what
//! the pages' next owner has in them, without a fault; ours is refused, and
//! dmasan says so. `scripts/stale-read` runs it; it fails if that is not what
//! happens.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a tool for developers

mod gpu;
mod machine;
mod picture;
#[path = "../support/qtest.rs"]
mod qtest;

use gpu::Gpu;
use machine::{Machine, OURS, SIZE, THEIRS};
use picture::{Frame, Side};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the resource's pages are for the device.
const IOVA: u64 = 0x1000_0000;
const PAGE: u64 = 4096;

const MAPPED: &str = "the driver's";
const REUSED: &str = "the next owner's";

/// What one device did.
struct Seen {
    device: u16,
    /// Whose picture it showed, before the unmap and after.
    pictures: [&'static str; 2],
    /// The answers to the two transfers.
    answers: [String; 2],
    /// What the remapping unit recorded of each.
    faults: [Vec<String>; 2],
    shots: [PathBuf; 2],
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [program, out] = arguments.as_slice() else {
        eprintln!("usage: stale-read DMASAN FOLDER");
        return ExitCode::from(2);
    };
    let mut machine = match Machine::start(program, out) {
        Ok(machine) => machine,
        Err(why) => {
            eprintln!("the machine does not start: {why}");
            eprintln!(
                "{}",
                std::fs::read_to_string(out.join("dmasan.txt")).unwrap_or_default()
            );
            return ExitCode::from(3);
        }
    };
    let version = machine.version().unwrap();
    let tops = machine.isolate(&[THEIRS, OURS]);
    let theirs = sequence(&mut machine, THEIRS, tops[0], out);
    let ours = sequence(&mut machine, OURS, tops[1], out);
    let (code, report) = machine.end().unwrap();
    tell(&version, [&theirs, &ours]);
    let found = report.lines().find(|line| line.contains("dma-unmapped"));
    println!("\ndmasan's report, exit code {code:?}:\n{report}");
    let svg = draw(&version, [&theirs, &ours], found.is_some()).unwrap();
    std::fs::write(out.join("stale-read.svg"), svg).unwrap();

    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: &'static str| {
        if !holds {
            wrong.push(what);
        }
    };
    let good = "RESP_OK_NODATA";
    expect(
        theirs.pictures == [MAPPED, REUSED],
        "QEMU's device shows the next owner's picture",
    );
    expect(
        theirs.answers == [good, good],
        "QEMU's device answers both transfers with OK",
    );
    expect(
        theirs.faults.concat().is_empty(),
        "no fault of QEMU's device",
    );
    expect(
        ours.pictures == [MAPPED, MAPPED],
        "ours never shows the next owner's picture",
    );
    expect(
        ours.answers[0] == good && ours.answers[1] != good,
        "ours refuses the second transfer",
    );
    expect(
        ours.faults[0].is_empty(),
        "no fault while the pages are mapped",
    );
    expect(
        !ours.faults[1].is_empty(),
        "a fault of ours at the second transfer",
    );
    expect(
        code == Some(1) && found.is_some(),
        "dmasan reports dma-unmapped, and ends with 1",
    );
    for what in &wrong {
        eprintln!("expected, and not so: {what}");
    }
    ExitCode::from(u8::from(!wrong.is_empty()))
}

/// A picture on the screen; its pages unmapped and given to somebody else; and
/// the device told once more to read them.
fn sequence(machine: &mut Machine, device: u16, top: u64, out: &Path) -> Seen {
    let number = u64::from(device >> 3);
    let rings = 0x500_0000 + number * 0x10_0000;
    let pixels = rings + 0x8_0000;
    let pages = u64::from(SIZE.0 * SIZE.1 * 4).div_ceil(PAGE);
    let drawn = picture::frame(&["THE DRIVER'S", "PICTURE"], 0x10_3060);
    let secret = picture::frame(&["A SECRET OF THE", "PAGES' NEXT OWNER"], 0x70_1010);

    let mut gpu = Gpu::find(
        machine,
        device,
        0xe000_0000 + number as u32 * 0x100_0000,
        rings,
    );
    machine.map(top, Gpu::rings(), rings, gpu::PAGES);
    let leaves = machine.map(top, IOVA, pixels, pages);
    machine.qtest.store(pixels, &picture::bytes(&drawn));
    gpu.start(machine);
    gpu.show(machine, SIZE, IOVA);
    let mut seen = Seen {
        device,
        pictures: [""; 2],
        answers: [String::new(), String::new()],
        faults: [Vec::new(), Vec::new()],
        shots: ["mapped", "reused"].map(|when| out.join(format!("{number}-{when}.png"))),
    };
    for step in 0..2 {
        if step == 1 {
            machine.unmap(&leaves);
            machine.qtest.store(pixels, &picture::bytes(&secret));
        }
        seen.answers[step] = gpu.update(machine, SIZE);
        seen.faults[step] = match (step, device) {
            // QEMU does a refused access of ours once more, after the answer.
            (1, OURS) => machine.faults_soon(),
            _ => machine.faults(),
        };
        machine.shot(device, &seen.shots[step]).unwrap();
        let shown = picture::read(&seen.shots[step]).unwrap();
        seen.pictures[step] = whose(&shown, &drawn, &secret);
    }
    seen
}

fn whose(shown: &Frame, drawn: &Frame, secret: &Frame) -> &'static str {
    if shown == drawn {
        MAPPED
    } else if shown == secret {
        REUSED
    } else {
        "neither"
    }
}

fn name(seen: &Seen, version: &str) -> String {
    if seen.device == THEIRS {
        format!("QEMU {version}: virtio-gpu-pci")
    } else {
        "dmasan, as a vfio-user device".to_owned()
    }
}

fn tell(version: &str, sides: [&Seen; 2]) {
    for seen in sides {
        println!("\n{} (00:{:02x}.0)", name(seen, version), seen.device >> 3);
        for (step, when) in ["pages mapped", "pages unmapped and reused"]
            .iter()
            .enumerate()
        {
            println!("  {when}: transfer");
            println!("    answer   {}", seen.answers[step]);
            println!("    picture  {}", seen.pictures[step]);
            match seen.faults[step].as_slice() {
                [] => println!("    faults   none"),
                faults => println!("    faults   {}", faults.join("; ")),
            }
        }
    }
}

fn draw(version: &str, sides: [&Seen; 2], found: bool) -> std::io::Result<String> {
    let sides = sides.map(|seen| {
        let mut said = vec![
            (
                format!("TRANSFER_TO_HOST_2D: {}", seen.answers[1]),
                seen.answers[1] != "RESP_OK_NODATA",
            ),
            (
                format!("shown: {} picture", seen.pictures[1]),
                seen.pictures[1] == MAPPED,
            ),
        ];
        match seen.faults[1].first() {
            None => said.push(("VT-d: no fault".to_owned(), false)),
            Some(fault) => {
                let short = fault.split(", by").next().unwrap_or(fault);
                said.push((format!("VT-d: {short}"), true));
            }
        }
        if seen.device == OURS && found {
            said.push(("dmasan: dma-unmapped".to_owned(), true));
        }
        Side {
            name: name(seen, version),
            shots: [&seen.shots[0], &seen.shots[1]],
            said,
        }
    });
    picture::side_by_side(
        "one VT-d, one sequence, two devices",
        [
            "The driver unmaps the pages, the invalidation completes, and their next owner",
            "writes to them. The backing was never detached; the device is told to transfer:",
        ],
        &sides,
    )
}
