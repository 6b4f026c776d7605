use crate::hal::spec::{FAULT_VECTOR, FIRST_DEVICE_VECTOR};
use crate::hal::{HalError, Interrupt, State};
use crate::mm::testing::{DEVICE, TestMachine};
use memory::RequesterId;

const MSIX_AT: usize = 0x40;

/// BAR 0 of 16 KiB, BAR 1 with an MSI-X table of four at 0x100, BAR 2 of
/// 64 bits.
fn machine() -> TestMachine {
    let mut machine = TestMachine::new();
    machine.bars = [
        (0x4000, false),
        (0x1000, false),
        (1 << 33, true),
        (0, false),
        (0, false),
        (0, false),
    ];
    machine.config[0x06] = 0x10;
    machine.config[0x34] = MSIX_AT as u8;
    machine.config[MSIX_AT] = 0x11;
    machine.config[MSIX_AT + 2..MSIX_AT + 4].copy_from_slice(&0x4003u16.to_le_bytes());
    machine.config[MSIX_AT + 4..MSIX_AT + 8].copy_from_slice(&0x101u32.to_le_bytes());
    machine
}

fn command(machine: &TestMachine) -> u16 {
    u16::from_le_bytes([machine.config[4], machine.config[5]])
}

#[test]
fn bars_are_sized_and_placed() {
    let (mut hal, mut machine) = (State::default(), machine());
    let resources = hal.configure_device(&mut machine, DEVICE, 0).unwrap();
    let placed: Vec<_> = resources
        .memory
        .iter()
        .map(|range| (range.bar, range.address.0, range.length))
        .collect();
    let expected = [
        (0, 0xe000_0000, 0x4000),
        (1, 0xe000_4000, 0x1000),
        (2, 0x80_0000_0000, 1 << 33),
    ];
    assert_eq!(placed, expected);
    assert_eq!(machine.config[0x10..0x14], 0xe000_0000u32.to_le_bytes());
    assert_eq!(machine.config[0x18..0x20], 0x80_0000_0000u64.to_le_bytes());
}

#[test]
fn a_device_that_comes_back_from_d3_has_its_bars_messages_and_bus_mastering() {
    let (mut hal, mut machine) = (State::default(), machine());
    hal.configure_device(&mut machine, DEVICE, 2).unwrap();
    hal.enable_device(&mut machine, DEVICE);
    let (config, table) = (machine.config, machine.msix.clone());
    hal.power_down(&mut machine, DEVICE);
    assert_eq!(command(&machine) & 6, 0);
    // What the device itself loses.
    machine.config[0x10..0x28].fill(0);
    machine.config[MSIX_AT + 3] = 0;
    machine.msix.clear();
    hal.power_up(&mut machine, DEVICE);
    assert_eq!((machine.config, machine.msix), (config, table));
}

#[test]
fn a_configured_device_answers_and_masters_the_bus_only_once_enabled() {
    let (mut hal, mut machine) = (State::default(), machine());
    hal.configure_device(&mut machine, DEVICE, 2).unwrap();
    assert_eq!(command(&machine) & 6, 2);
    hal.enable_device(&mut machine, DEVICE);
    assert_eq!(command(&machine) & 6, 6);
    hal.disable_device(&mut machine, DEVICE);
    assert_eq!(command(&machine) & 6, 2);
}

#[test]
fn messages_are_programmed_through_the_bar() {
    let (mut hal, mut machine) = (State::default(), machine());
    let resources = hal
        .configure_device(&mut machine, DEVICE, 2)
        .unwrap()
        .clone();
    assert_eq!(resources.messages.len(), 2);
    let table = 0xe000_4100;
    let entry: Vec<u64> = (0..4)
        .map(|i| machine.msix[&(table + 16 + 4 * i)])
        .collect();
    let vector = u64::from(FIRST_DEVICE_VECTOR) + 1;
    assert_eq!(entry, [0xfee0_0000, 0, vector, 0]);
    assert!(!machine.msix.contains_key(&(table + 32)));
    // Enabled, not masked, the size as it was.
    assert_eq!(
        machine.config[MSIX_AT + 2..MSIX_AT + 4],
        0x8003u16.to_le_bytes()
    );
}

#[test]
fn messages_find_their_target() {
    let (mut hal, mut machine) = (State::default(), machine());
    hal.configure_device(&mut machine, DEVICE, 9).unwrap();
    assert_eq!(
        hal.resources(DEVICE).messages.len(),
        4,
        "the table has four"
    );
    let third = Interrupt::Device {
        device: DEVICE,
        message: 2,
    };
    let data = u32::from(FIRST_DEVICE_VECTOR) + 2;
    assert_eq!(hal.message_target(0xfee0_0000, data), Some(third));
    let fault = u32::from(FAULT_VECTOR);
    assert_eq!(
        hal.message_target(0xfee0_0000, fault),
        Some(Interrupt::IommuFault)
    );
    assert_eq!(hal.message_target(0xfee0_0000, 0x30), None);
    assert_eq!(hal.message_target(0x1000, data), None);
}

#[test]
fn a_second_configuration_keeps_no_old_vectors() {
    let (mut hal, mut machine) = (State::default(), machine());
    hal.configure_device(&mut machine, DEVICE, 4).unwrap();
    hal.configure_device(&mut machine, DEVICE, 1).unwrap();
    let data = u32::from(FIRST_DEVICE_VECTOR) + 1;
    assert_eq!(hal.message_target(0xfee0_0000, data), None);
}

#[test]
fn a_bar_too_large_for_its_window_is_an_error() {
    let (mut hal, mut machine) = (State::default(), machine());
    machine.bars[0] = (1 << 30, false);
    let error = hal.configure_device(&mut machine, DEVICE, 1).unwrap_err();
    assert!(matches!(
        error,
        HalError::NoRoom {
            bar: 0,
            size: 0x4000_0000,
            ..
        }
    ));
}

#[test]
fn a_looped_capability_list_ends() {
    let (mut hal, mut machine) = (State::default(), machine());
    machine.config[MSIX_AT] = 0x09;
    machine.config[MSIX_AT + 1] = MSIX_AT as u8;
    hal.configure_device(&mut machine, DEVICE, 1).unwrap();
    assert_eq!(hal.resources(DEVICE).messages, []);
}

#[test]
fn a_table_outside_its_bar_is_not_programmed() {
    let (mut hal, mut machine) = (State::default(), machine());
    machine.config[MSIX_AT + 4..MSIX_AT + 8].copy_from_slice(&0xfe9u32.to_le_bytes());
    hal.configure_device(&mut machine, DEVICE, 1).unwrap();
    assert!(machine.msix.is_empty());
}

#[test]
fn an_absent_device_has_nothing() {
    let (mut hal, mut machine) = (State::default(), machine());
    let absent = RequesterId::new(0, 9, 0);
    let resources = hal.configure_device(&mut machine, absent, 1).unwrap();
    assert_eq!((resources.memory.len(), resources.messages.len()), (0, 0));
    assert_eq!(hal.resources(RequesterId::new(1, 0, 0)).memory, []);
}
