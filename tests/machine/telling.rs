//! What our driver tells dmasan of its memory in a guest (docs/qemu.md),
//! beside what it does: here nobody listens, and the machine knows.

use super::*;
use machine::VendorRegion;
use std::collections::BTreeMap;

/// The region by which a guest tells of its memory (docs/qemu.md), as our
/// driver finds it.
fn telling() -> VendorRegion {
    let mut data = 1u16.to_le_bytes().to_vec();
    data.extend_from_slice(b"dmsn");
    data.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
    data.extend_from_slice(&0x1000u32.to_le_bytes());
    VendorRegion {
        bar: 2,
        size: 0x1000,
        vendor: 0xd3a5,
        data,
    }
}

/// The guest driver's own allocations: its address, its pages, is it free?
fn allocations(records: &[Record]) -> Vec<(u64, Vec<u64>, bool)> {
    let mut all = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::Allocate(made)
                if matches!(
                    made.kind,
                    AllocationKind::DxgkMdl | AllocationKind::DxgkContiguous
                ) =>
            {
                let pages = made.pages.iter();
                let pages = pages.flat_map(|run| run.first.0..run.first.0 + run.count);
                all.insert(made.id, (made.address, pages.collect(), false));
            }
            Event::Free { allocation, .. } => {
                if let Some(freed) = all.get_mut(allocation) {
                    freed.2 = true;
                }
            }
            _ => {}
        }
    }
    all.into_values().collect()
}

/// What a Windows guest's driver tells under QEMU is what it does: pages are
/// told before the device can have them, and their end before and after it.
#[test]
fn the_driver_tells_truly_whose_memory_is_whose() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("../../tests/scenarios/all-features.toml");
    let features = Options {
        plan: Plan::parse(&std::fs::read_to_string(path).unwrap()).unwrap(),
        vendor: Some(telling()),
        ..Options::default()
    };
    let mut machine = machine("plain", &features);
    to_the_end(&mut machine);
    assert_eq!(findings(&machine), Vec::<String>::new());

    let bytes = machine.journal().bytes();
    let mut registers = BTreeMap::new();
    let mut told: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut ended = 0;
    for write in machine.vendor_writes() {
        registers.insert(write.offset, write.value);
        if write.offset != 0x30 {
            continue;
        }
        let cookie = registers[&0x20];
        let list = (0..write.value >> 16).map(|entry| registers[&(0x800 + 8 * entry)]);
        let pages = list.flat_map(|entry| entry >> 12..(entry >> 12) + (entry & 0xfff) + 1);
        let then = allocations(&journal::read(&bytes[..write.at]).unwrap().0);
        // An address may be that of an earlier allocation too.
        let (_, own, freed) = then.iter().rfind(|made| made.0 == cookie).unwrap();
        match write.value & 0xff {
            1 => {
                assert!(!freed && told.insert(cookie, pages.collect()).is_none());
            }
            2 => told.get_mut(&cookie).unwrap().extend(pages),
            3 => {
                assert!(!freed, "{cookie:#x} is told of too late");
                assert_eq!(&told[&cookie], own);
            }
            4 => {
                assert!(freed, "{cookie:#x} is told of too early");
                assert!(told.remove(&cookie).is_some());
                ended += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(told.is_empty(), "{told:x?}");
    assert_eq!(ended, allocations(&records(&machine)).len());
    assert!(ended > 5);
}
