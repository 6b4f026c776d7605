//! Writes a few seeds for each fuzz target.
//!
//!     cargo run --example seeds -- CORPUS [DRIVER.sys]
//!
//! Nothing here is anybody else's: the images and PDBs are the guest
//! driver's own, if it was built.

mod clients;

use iommu::testing::{Os, READ_WRITE, contexts, global, pages};
use journal::event::{
    Allocation, AllocationId, AllocationKind, Begin, BugCheck, Certainty, Claim, ClaimStep,
    ContextId, End, Event, Module, NameId, PageRun, StackId, Subject, Table,
};
use journal::{Journal, Record};
use memory::{Gpa, Iova, Pfn, RequesterId};
use scenario::{Plan, Scenario};
use std::fs;
use std::io;
use std::path::PathBuf;

const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
/// Bytes of code that the scan of instructions gets.
const CODE: usize = 2048;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(corpus) = arguments.next() else {
        return Err(io::Error::other("give the folder of the corpora"));
    };
    let put = |target: &str, name: &str, bytes: &[u8]| -> io::Result<()> {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };

    if let Some(driver) = arguments.next() {
        let image = fs::read(&driver)?;
        put("loader", "driver", &image)?;
        put("unwind", "driver", &walk(&image))?;
        let code = image.get(0x400..0x400 + CODE).unwrap_or_default();
        put("code", "driver", &[&[0; 6], code].concat())?;
        put("pdb", "driver", &fs::read(driver.with_extension("pdb"))?)?;
    }
    put("scenario", "whole", SCENARIO.as_bytes())?;
    put("gate", "suppressions", SUPPRESSIONS.as_bytes())?;
    put("gate", "baseline", BASELINE.as_bytes())?;
    put("code", "privileged", &[&[0; 6], PRIVILEGED].concat())?;

    let records = run();
    let bare: Vec<u8> = records
        .iter()
        .flat_map(|record| postcard::to_stdvec(record).unwrap_or_default())
        .collect();
    put("report", "run", &bare)?;
    put("replay", "run", &[&[0x40], &bare[..]].concat())?;
    put("journal", "run", &[&[0xff; 5], &bare[..]].concat())?;

    put("vfio-user", "client", &clients::client())?;
    put("vfio-user", "remapper", &clients::remapper())?;
    put("virtio-iommu", "driver", &clients::requests())?;
    put("vfio-user", "claims", &clients::claims())?;

    // One of each step of the interpreters, and a long row of a few.
    for (name, step) in [("steps", 1u32), ("strides", 37), ("backwards", 255)] {
        let bytes: Vec<u8> = (0..1024u32).map(|n| (n * step + n / 256) as u8).collect();
        for target in [
            "iommu",
            "gpu",
            "mdl",
            "windows",
            "unwind",
            "vfio-user",
            "virtio-iommu",
        ] {
            put(target, name, &bytes)?;
        }
    }
    Ok(())
}

const SCENARIO: &str = r#"name = "seed"
seed = 7
order = "lazy"
part-accesses = "all"

[[answer]]
of = "response"
number = 2
at = 24
data = "ff00"

[[fault]]
at = "access"
do = "redirect"
to = 0x1000
command = "TRANSFER*"
direction = "read"
iova = [0, 0xffff]
after = "DxgkDdiEscape"
window = [0, 1000000]
probability = 0.5
nth = 2

[[fault]]
at = "call"
do = "fail"
function = "DxgkCb*"
status = "STATUS_NO_MEMORY"

[verify]
findings = ["stale-iotlb"]
released = true
frame = "unchanged"

[[choice]]
number = 3
take = 1

[[workload]]
do = "create"
width = 64
height = 32

[[workload]]
do = "present"
frame = 2

[[workload]]
do = "wait"

[[workload]]
do = "free"
resource = 0
"#;

const SUPPRESSIONS: &str = r#"[[suppress]]
finding = "handle-leak"
function = "*stop*"
reason = "mended in the next release"
"#;

const BASELINE: &str = r#"{"format": "dmasan-report", "version": 1,
"findings": [{"id": "handle-leak", "breach": {"place": {"stack": [{"module": "a.sys", "function": "f"}]}}}],
"bug_checks": []}
"#;

/// rdmsr, wrmsr, mov cr8, mov from cr0, in, out, cli, sti, pushfq, popfq,
/// rdtsc, cpuid, sgdt, swapgs, iretq, hlt.
const PRIVILEGED: &[u8] = &[
    0x0f, 0x32, 0x0f, 0x30, 0x44, 0x0f, 0x22, 0xc0, 0x0f, 0x20, 0xc0, 0xec, 0xee, 0xfa, 0xfb, 0x9c,
    0x9d, 0x0f, 0x31, 0x0f, 0xa2, 0x0f, 0x01, 0x00, 0x0f, 0x01, 0xf8, 0x48, 0xcf, 0xf4,
];

/// The image in memory layout, after the registers and the stack of a walk.
/// A seed needs no more of PE than this.
fn walk(file: &[u8]) -> Vec<u8> {
    let half = |at: usize| {
        file.get(at..at + 2)
            .map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
    };
    let word = |at: usize| usize::from(half(at)) | usize::from(half(at + 2)) << 16;
    let nt = word(0x3c);
    let sections = nt + 24 + usize::from(half(nt + 20));
    let mut image = vec![0; word(nt + 24 + 56).min(1 << 20)];
    let mut copy = |to: usize, from: usize, length: usize| {
        if let (Some(to), Some(from)) = (
            image.get_mut(to..to + length),
            file.get(from..from + length),
        ) {
            to.copy_from_slice(from);
        }
    };
    copy(0, 0, word(nt + 24 + 60));
    for section in 0..usize::from(half(nt + 6)) {
        let row = sections + 40 * section;
        copy(word(row + 12), word(row + 20), word(row + 16));
    }
    let mut seed = vec![0x40, 0x12, 0, 0, 0];
    seed.extend(0..32);
    seed.extend(image);
    seed
}

/// A run that frees a page while the device still uses it.
fn run() -> Vec<Record> {
    let os = Os::new(
        64 << 12,
        Scenario::new(Plan::default(), Journal::in_memory()),
    );
    let tell = |event| os.scenario.journal().emit(event);
    tell(Event::Begin(Begin {
        version: "0".into(),
        driver: "seed.sys".into(),
        domain: "isolation".into(),
        seed: 1,
        scenario: "default".into(),
        quarantine: 8,
        keep_going: true,
        settings: vec![("Name".into(), "value".into())],
        memory: 64 << 12,
        device: DEVICE,
        ..Begin::default()
    }));
    tell(Event::Module(Module {
        name: "seed.sys".into(),
        base: 0xffff_f800_1000_0000,
        size: 0x1000,
        time_stamp: 1,
        pdb: None,
    }));
    let stack = os
        .scenario
        .journal()
        .stack(&[0xffff_f800_1000_0010, 0xffff_f800_1000_0020]);
    let name = os.scenario.journal().name("TRANSFER_TO_HOST_2D");
    tell(Event::Allocate(Allocation {
        id: AllocationId(1),
        kind: AllocationKind::DxgkMdl,
        handle: 1,
        address: 0xffff_8000_0000_0000,
        pages: vec![PageRun {
            first: Pfn(0x30),
            count: 2,
        }],
        requested: 2,
        stack,
    }));
    map(&os);
    use_it(&os, name);
    tell(Event::Free {
        allocation: AllocationId(1),
        stack,
    });
    let dma = os.dma(DEVICE).with_context(ContextId(1));
    let _ = dma.read(Iova(0x3_0010), &mut [0; 64]);
    let _ = dma.write(Iova(0x3_1010), &[1; 64]);
    let _ = dma.read(Iova(0x40_0000), &mut [0; 8]);
    os.run(pages(1, Iova(0x3_0000), 1, true));
    tell(Event::BugCheck(BugCheck {
        rule: None,
        finding: None,
        code: 0xe6,
        parameters: [0x26, 0, 0, 0],
        certainty: Certainty::Documented,
        reason: "a fault of the device".into(),
        subject: Subject::default(),
        stack: StackId(0),
        continued: true,
    }));
    for step in [
        ClaimStep::Allocated,
        ClaimStep::Extended,
        ClaimStep::Retired,
        ClaimStep::Freed,
        ClaimStep::Forgotten,
    ] {
        tell(Event::Claim(Claim {
            device: DEVICE,
            cookie: 7,
            tag: 1,
            step,
            pages: vec![PageRun {
                first: Pfn(3),
                count: 2,
            }],
        }));
    }
    tell(Event::End(End::Completed));
    let bytes = os.scenario.journal().bytes();
    journal::read(&bytes[..])
        .map(|(records, _)| records)
        .unwrap_or_default()
}

/// The tables, told as an operating system's.
fn map(os: &Os) {
    os.start();
    let top = os.attach(DEVICE, 1, 4);
    let context = os.context_entry(DEVICE);
    let mut entries = vec![
        (Gpa(os.root.0), Table::Root { bus: 0 }),
        (Gpa(context.0 + 8), Table::Context { device: DEVICE }),
        (context, Table::Context { device: DEVICE }),
    ];
    for page in [0x3_0000, 0x3_1000] {
        let iova = Iova(page);
        os.map(top, iova, Gpa(page), READ_WRITE);
        for level in (1..=4).rev() {
            let table = Table::SecondLevel {
                domain: 1,
                level,
                iova,
            };
            entries.push((os.entry(top, 4, level, iova), table));
        }
    }
    for (address, table) in entries {
        os.scenario.journal().emit(Event::TableWrite {
            address,
            old: 0,
            new: os.look(address),
            table,
        });
    }
    os.run(contexts(1, 0, DEVICE, 0));
    os.run(global(true));
}

/// The device works on the pages.
fn use_it(os: &Os, name: NameId) {
    let tell = |event| os.scenario.journal().emit(event);
    let context = ContextId(1);
    tell(Event::Notify {
        device: DEVICE,
        queue: 0,
        available: Some(1),
    });
    tell(Event::Context {
        context,
        device: DEVICE,
        queue: 0,
        position: 0,
        head: 0,
    });
    let dma = os.dma(DEVICE).with_context(context);
    let _ = dma.read(Iova(0x3_0000), &mut [0; 24]);
    tell(Event::Command {
        context,
        name,
        detail: "resource 1".into(),
        resource: None,
    });
    let _ = dma.write(Iova(0x3_1000), &[0; 24]);
    tell(Event::Response {
        context,
        code: 0x1100,
        name,
    });
}
