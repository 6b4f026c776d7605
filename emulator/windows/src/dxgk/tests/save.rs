//! Saving the frame buffer over a loss of power.

use super::*;

const PIN: &str = "DxgkCbPinFrameBufferForSave";
const UNPIN: &str = "DxgkCbUnpinFrameBufferForSave";
const MAP: &str = "DxgkCbMapFrameBufferPointer";
const UNMAP: &str = "DxgkCbUnmapFrameBufferPointer";

fn with_section(pages: u64) -> (Windows, TestMachine) {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    domain::attach(&mut windows, &mut machine).unwrap();
    windows.dxgk.section = Some(framebuffer::Section::new(pages * PAGE_SIZE));
    (windows, machine)
}

fn pin(windows: &mut Windows, machine: &mut TestMachine, bytes: u64) -> Vec<Pfn> {
    put(machine, 0, 0);
    put(machine, 8, bytes);
    assert_eq!(returned(call(windows, machine, PIN)), 0);
    let section = windows.dxgk.section.as_ref().unwrap();
    section.pinned.as_ref().unwrap().frames.clone()
}

/// Map; where the asked bytes are, and the view's own address.
fn map(windows: &mut Windows, machine: &mut TestMachine, bytes: u64, offset: u64) -> (Gva, u64) {
    put(machine, 0, 0);
    put(machine, 8, bytes);
    put(machine, 0x10, offset);
    assert_eq!(returned(call(windows, machine, MAP)), 0);
    let offset = machine.read_u64(Gva(ARGUMENT.0 + 0x10)).unwrap();
    let base = machine.read_u64(Gva(ARGUMENT.0 + 0x18)).unwrap();
    (Gva(base + offset), base)
}

fn unmap(windows: &mut Windows, machine: &mut TestMachine, base: u64) -> u64 {
    put(machine, 0, 0);
    put(machine, 8, base);
    returned(call(windows, machine, UNMAP))
}

#[test]
fn a_pinned_section_is_the_devices_until_it_is_unpinned_and_keeps_what_was_written() {
    let (mut windows, mut machine) = with_section(4);
    let frames = pin(&mut windows, &mut machine, 4 * PAGE_SIZE);
    assert!(frames.iter().all(|&frame| machine.device_writes(frame)));
    machine
        .memory()
        .write_u64(frames[3].base(), 0x1234)
        .unwrap();
    put(&mut machine, 0, 0);
    assert_eq!(returned(call(&mut windows, &mut machine, UNPIN)), 0);
    assert!(frames.iter().all(|&frame| !machine.device_reads(frame)));

    let (at, _) = map(&mut windows, &mut machine, PAGE_SIZE, 3 * PAGE_SIZE);
    assert_eq!(machine.read_u64(at).unwrap(), 0x1234);
}

#[test]
fn pieces_that_the_cpu_wrote_come_back_when_the_section_is_pinned() {
    let (mut windows, mut machine) = with_section(40);
    for page in [0, 17, 39] {
        let (at, base) = map(&mut windows, &mut machine, PAGE_SIZE, page * PAGE_SIZE);
        machine.write_u64(at, 0x100 + page).unwrap();
        assert_eq!(unmap(&mut windows, &mut machine, base), 0);
    }
    let frames = pin(&mut windows, &mut machine, 40 * PAGE_SIZE);
    for page in [0u64, 17, 39] {
        let held = machine.memory().read_u64(frames[page as usize].base());
        assert_eq!(held.unwrap(), 0x100 + page);
    }
}

#[test]
fn a_view_begins_at_a_multiple_of_64_kib() {
    let (mut windows, mut machine) = with_section(40);
    let (at, base) = map(&mut windows, &mut machine, PAGE_SIZE, 17 * PAGE_SIZE);
    assert_eq!(at.0 - base, PAGE_SIZE);
}

#[test]
fn sizes_and_offsets_outside_the_section_are_refused() {
    let rows = [
        (0, 0),
        (100, 0),
        (PAGE_SIZE, 100),
        (PAGE_SIZE, 4 * PAGE_SIZE),
        (5 * PAGE_SIZE, 0),
        (PAGE_SIZE, u64::MAX - PAGE_SIZE + 1),
    ];
    for (bytes, offset) in rows {
        let (mut windows, mut machine) = with_section(4);
        put(&mut machine, 8, bytes);
        put(&mut machine, 0x10, offset);
        let status = returned(call(&mut windows, &mut machine, MAP));
        assert_eq!(status, u64::from(status::INVALID_PARAMETER), "{bytes:#x}");
    }
}

#[test]
fn a_pin_that_fails_leaves_the_pieces() {
    let (mut windows, mut machine) = with_section(4);
    windows.dxgk.pin_succeeds = false;
    put(&mut machine, 8, PAGE_SIZE);
    let status = returned(call(&mut windows, &mut machine, PIN));
    assert_eq!(status, u64::from(status::NO_MEMORY));
    map(&mut windows, &mut machine, PAGE_SIZE, 0);
}

#[test]
fn a_view_is_unmapped_by_its_own_address_and_once() {
    let (mut windows, mut machine) = with_section(4);
    let (_, base) = map(&mut windows, &mut machine, PAGE_SIZE, 0);
    let wrong = unmap(&mut windows, &mut machine, base + PAGE_SIZE);
    assert_eq!(wrong, u64::from(status::INVALID_PARAMETER));
    assert_eq!(unmap(&mut windows, &mut machine, base), 0);
    assert_eq!(machine.translate(Gva(base)), None);
    let twice = unmap(&mut windows, &mut machine, base);
    assert_eq!(twice, u64::from(status::INVALID_PARAMETER));
}
