use super::{BAR0, Bench};
use crate::layout;
use crate::spec::virtio::{ISR_QUEUE, common};
use memory::Gpa;

fn interrupt(bench: &mut Bench) {
    let dma = bench.os.dma(super::DEVICE);
    bench.function.interrupt(dma, 0);
}

#[test]
fn a_vector_sends_its_message() {
    let mut bench = Bench::live();
    bench.messages();

    interrupt(&mut bench);

    assert_eq!(bench.sent(), [0x41]);
    assert_eq!(bench.read(0, layout::ISR, 1), 0);
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let mut bench = Bench::live();
    bench.messages();
    bench.write(1, 16 + 12, 4, 1);

    interrupt(&mut bench);
    assert!(bench.sent().is_empty());
    assert_eq!(bench.read(1, layout::MSIX_PBA, 8), 0b10);
    bench.write(1, 16 + 12, 4, 0);

    assert_eq!(bench.sent(), [0x41]);
    assert_eq!(bench.read(1, layout::MSIX_PBA, 8), 0);
}

#[test]
fn the_function_mask_holds_every_vector() {
    let mut bench = Bench::live();
    bench.messages();
    bench.config(0x42, 2, 0xc000);

    interrupt(&mut bench);
    interrupt(&mut bench);
    assert!(bench.sent().is_empty());
    bench.config(0x42, 2, 0x8000);

    // Two causes, one pending bit, one message.
    assert_eq!(bench.sent(), [0x41]);
}

#[test]
fn a_queue_without_a_vector_sends_nothing() {
    let mut bench = Bench::live();
    bench.messages();
    bench.set(common::QUEUE_MSIX_VECTOR, 0xffff);

    interrupt(&mut bench);

    assert!(bench.sent().is_empty());
}

#[test]
fn a_vector_that_is_not_there_reads_back_as_none() {
    let mut bench = Bench::live();

    bench.set(common::CONFIG_MSIX_VECTOR, 3);

    assert_eq!(bench.get(common::CONFIG_MSIX_VECTOR), 0xffff);
}

#[test]
fn without_msix_the_level_is_up_until_the_status_is_read() {
    let mut bench = Bench::live();

    interrupt(&mut bench);
    assert!(bench.function.intx());
    assert_eq!(bench.config_of(0x06, 2) & 8, 8);
    let isr = bench.read(0, layout::ISR, 1);

    assert_eq!(isr, u64::from(ISR_QUEUE));
    assert!(!bench.function.intx());
    assert_eq!(bench.config_of(0x06, 2) & 8, 0);
}

#[test]
fn intx_disable_hides_the_line_but_not_the_cause() {
    let mut bench = Bench::live();
    bench.config(0x04, 2, 0x406);

    interrupt(&mut bench);

    assert!(!bench.function.intx());
    assert_eq!(bench.config_of(0x06, 2) & 8, 8);
}

#[test]
fn table_takes_aligned_words_only() {
    for (offset, size, expected) in [(0, 4, 0xfee0_0000), (0, 2, 0), (1, 4, 0), (4, 8, 0)] {
        let mut bench = Bench::new();

        bench.write(1, offset, size, 0xfee0_0000);

        assert_eq!(bench.read(1, 0, 4), expected);
    }
}

#[test]
fn entries_are_masked_after_power_on() {
    let mut bench = Bench::new();

    let control: Vec<u64> = (0..3).map(|v| bench.read(1, 16 * v + 12, 4)).collect();

    assert_eq!(control, [1, 1, 1]);
}

#[test]
fn a_message_needs_bus_mastering() {
    let mut bench = Bench::live();
    bench.messages();
    bench.config(0x04, 2, 0x2);
    let dma = bench
        .os
        .unit
        .dma(bench.os.env(), super::DEVICE, bench.function.bus_master());

    bench.function.interrupt(dma, 0);

    assert!(bench.sent().is_empty());
    assert!(bench.function.decode(Gpa(BAR0)).is_some());
}
