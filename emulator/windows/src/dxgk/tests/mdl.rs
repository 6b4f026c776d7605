//! MDLs of the driver's own, mapped for the device.

use super::*;
use crate::mm::testing::invoke;
use journal::event::Event;

const MAP: &str = "DxgkCbMapMdlToIoMmu";
const UNMAP: &str = "DxgkCbUnmapMdlFromIoMmu";

/// A locked MDL of a page of pool, and its page.
fn locked(windows: &mut Windows, machine: &mut TestMachine, write: bool) -> (u64, Pfn) {
    let mut mm =
        |name: &str, arguments: &[u64]| returned(invoke(&mut windows.mm, machine, name, arguments));
    let block = mm("ExAllocatePool2", &[0x40, PAGE_SIZE, 1]);
    let mdl = mm("IoAllocateMdl", &[block, PAGE_SIZE, 0, 0, 0]);
    mm("MmProbeAndLockPages", &[mdl, 0, u64::from(write)]);
    (mdl, Pfn(machine.read_u64(Gva(mdl + 0x30)).unwrap()))
}

fn map(windows: &mut Windows, machine: &mut TestMachine, mdl: u64) -> u64 {
    put(machine, 0, mdl);
    assert_eq!(returned(call(windows, machine, MAP)), 0);
    machine.read_u64(Gva(ARGUMENT.0 + 8)).unwrap()
}

#[test]
fn a_mapped_mdl_is_reachable_until_it_is_unmapped() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    domain::attach(&mut windows, &mut machine).unwrap();
    let (mdl, page) = locked(&mut windows, &mut machine, true);
    assert!(!machine.device_reads(page));
    let handle = map(&mut windows, &mut machine, mdl);
    assert!(machine.device_reads(page) && machine.device_writes(page));
    free(&mut windows, &mut machine, UNMAP, handle);
    assert!(!machine.device_reads(page));
    assert_eq!(windows.dxgk.live_allocations(), 0);
    let told = machine.events().into_iter().filter(|event| {
        matches!(event, Event::MapMdl(m) if m.handle == handle && m.write)
            || matches!(event, Event::UnmapMdl { handle: h, .. } if *h == handle)
    });
    assert_eq!(told.count(), 2);
}

#[test]
fn an_mdl_locked_for_reading_is_mapped_read_only() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    domain::attach(&mut windows, &mut machine).unwrap();
    let (mdl, page) = locked(&mut windows, &mut machine, false);
    map(&mut windows, &mut machine, mdl);
    assert!(machine.device_reads(page) && !machine.device_writes(page));
}

#[test]
fn pages_of_mm_are_mapped_to_write() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    domain::attach(&mut windows, &mut machine).unwrap();
    let arguments = [0, u64::MAX, 0, PAGE_SIZE];
    let name = "MmAllocatePagesForMdl";
    let mdl = returned(invoke(&mut windows.mm, &mut machine, name, &arguments));
    map(&mut windows, &mut machine, mdl);
    let page = Pfn(machine.read_u64(Gva(mdl + 0x30)).unwrap());
    assert!(machine.device_writes(page));
}

#[test]
fn an_mdl_mapped_before_the_attach_is_mapped_by_it_as_it_was_locked() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    let (mdl, page) = locked(&mut windows, &mut machine, false);
    map(&mut windows, &mut machine, mdl);
    domain::attach(&mut windows, &mut machine).unwrap();
    assert!(machine.device_reads(page) && !machine.device_writes(page));
}

#[test]
fn a_handle_of_a_mapped_mdl_frees_nothing() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    let (mdl, _) = locked(&mut windows, &mut machine, true);
    let handle = map(&mut windows, &mut machine, mdl);
    let status = free(&mut windows, &mut machine, FREE_PAGES, handle);
    assert_eq!(status, u64::from(status::INVALID_HANDLE));
    assert_eq!(windows.dxgk.live_allocations(), 1);
}

#[test]
fn an_mdl_that_dies_while_mapped_is_told_by_its_free() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    let (mdl, _) = locked(&mut windows, &mut machine, true);
    map(&mut windows, &mut machine, mdl);
    let _ = invoke(&mut windows.mm, &mut machine, "MmUnlockPages", &[mdl]);
    let _ = invoke(&mut windows.mm, &mut machine, "IoFreeMdl", &[mdl]);
    let told = machine.events().into_iter().any(
        |event| matches!(event, Event::Breach(breach) if breach.finding == "mdl-use-after-free"),
    );
    assert!(told);
}

#[test]
fn an_mdl_in_a_block_that_is_freed_is_told_by_the_unmap() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    let (mdl, _) = locked(&mut windows, &mut machine, true);
    let arguments = [0x40, 0x100, 1];
    let mm = |windows: &mut Windows, machine: &mut TestMachine, name: &str, a: &[u64]| {
        returned(invoke(&mut windows.mm, machine, name, a))
    };
    let block = mm(&mut windows, &mut machine, "ExAllocatePool2", &arguments);
    let mut bytes = [0; 0x38];
    machine.read(Gva(mdl), &mut bytes).unwrap();
    machine.write(Gva(block + 0x40), &bytes).unwrap();
    let handle = map(&mut windows, &mut machine, block + 0x40);
    mm(&mut windows, &mut machine, "ExFreePool", &[block]);
    free(&mut windows, &mut machine, UNMAP, handle);
    let told: Vec<String> = machine
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Breach(breach) => Some(breach.rule),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["mdl-device-mapped"]);
}

#[test]
fn an_mdl_that_was_advanced_while_mapped_is_told_once() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    let block = returned(invoke(
        &mut windows.mm,
        &mut machine,
        "ExAllocatePool2",
        &[0x40, 2 * PAGE_SIZE, 1],
    ));
    let arguments = [block, 2 * PAGE_SIZE, 0, 0, 0];
    let mdl = returned(invoke(
        &mut windows.mm,
        &mut machine,
        "IoAllocateMdl",
        &arguments,
    ));
    returned(invoke(
        &mut windows.mm,
        &mut machine,
        "MmProbeAndLockPages",
        &[mdl, 0, 1],
    ));
    let handle = map(&mut windows, &mut machine, mdl);
    let name = "MmAdvanceMdl";
    returned(invoke(
        &mut windows.mm,
        &mut machine,
        name,
        &[mdl, PAGE_SIZE],
    ));
    free(&mut windows, &mut machine, UNMAP, handle);
    let told = machine.events().into_iter();
    let told = told.filter(|event| matches!(event, Event::Breach(_)));
    assert_eq!(told.count(), 1);
}
