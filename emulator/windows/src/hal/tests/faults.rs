use super::domain::isolated;
use crate::hal::Interrupt;
use crate::mm::testing::DEVICE;
use memory::Pfn;

#[test]
fn a_fault_stops_windows_with_address_and_reason() {
    let (mut hal, _mm, mut machine, _) = isolated();
    machine.device_writes(Pfn(30));
    let stop = hal.fault_interrupt(&mut machine).unwrap();
    assert_eq!((stop.code, stop.parameters), (0xe6, [0x26, 0, 30 << 12, 5]));
    assert_eq!(stop.go_on, Some(0));
    assert!(stop.reason.contains(&DEVICE.to_string()), "{}", stop.reason);
}

#[test]
fn a_fault_sends_the_vector_of_the_fault_event() {
    let (hal, _mm, machine, _) = isolated();
    machine.device_reads(Pfn(30));
    let messages = machine.unit.take_messages();
    let targets: Vec<_> = messages
        .iter()
        .map(|message| hal.message_target(message.address, message.data))
        .collect();
    assert_eq!(targets, [Some(Interrupt::IommuFault)]);
}

#[test]
fn a_served_interrupt_comes_again_with_the_next_fault() {
    let (mut hal, _mm, mut machine, _) = isolated();
    machine.device_reads(Pfn(30));
    hal.fault_interrupt(&mut machine).unwrap();
    assert_eq!(hal.fault_interrupt(&mut machine), None);
    machine.unit.take_messages();
    machine.device_reads(Pfn(31));
    assert_eq!(machine.unit.take_messages().len(), 1);
    let stop = hal.fault_interrupt(&mut machine).unwrap();
    assert_eq!(stop.parameters, [0x26, 0, 31 << 12, 6]);
}

#[test]
fn the_oldest_of_many_faults_is_told_and_an_overflow_is_cleared() {
    let (mut hal, _mm, mut machine, _) = isolated();
    // Not from the first record on.
    machine.device_reads(Pfn(30));
    hal.fault_interrupt(&mut machine).unwrap();
    for page in 40..60 {
        machine.device_reads(Pfn(page));
    }
    let stop = hal.fault_interrupt(&mut machine).unwrap();
    assert_eq!(stop.parameters[2], 40 << 12);
    assert!(stop.reason.contains("7 more"), "{}", stop.reason);
    assert!(stop.reason.contains("lost"), "{}", stop.reason);
    machine.device_reads(Pfn(70));
    let stop = hal.fault_interrupt(&mut machine).unwrap();
    assert_eq!(stop.parameters[2], 70 << 12);
}
