//! vm-memory's and virtio-queue's code over a `Dma`.

use super::*;
use crate::testing::global;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

const TABLE: u64 = 0x12_3456_7000;
const AVAILABLE: u64 = TABLE + 0x100;
const USED: u64 = TABLE + 0x200;

/// A queue of 4 entries in the mapped page, one buffer available.
fn ring(os: &Os) -> Queue {
    let dma = os.dma(DEVICE);
    let write = |at: u64, bytes: &[u8]| dma.write(Iova(at), bytes).unwrap();
    write(TABLE, &0x9000u64.to_le_bytes());
    write(TABLE + 8, &0x40u32.to_le_bytes());
    write(AVAILABLE, &[0, 0, 1, 0, 0, 0]);
    let mut queue = Queue::new(4).unwrap();
    queue.set_desc_table_address(Some(TABLE as u32), Some((TABLE >> 32) as u32));
    queue.set_avail_ring_address(Some(AVAILABLE as u32), Some((AVAILABLE >> 32) as u32));
    queue.set_used_ring_address(Some(USED as u32), Some((USED >> 32) as u32));
    queue.set_ready(true);
    queue
}

#[test]
fn a_ring_runs_over_the_translation() {
    let (os, _, _) = one_page();
    os.memory.fill(PAGE_A, 4096, 0).unwrap();
    let mut queue = ring(&os);
    let dma = os.dma(DEVICE);
    let mut chain = queue.pop_descriptor_chain(&dma).unwrap();
    let descriptor = chain.next().unwrap();
    assert_eq!((descriptor.addr().0, descriptor.len()), (0x9000, 0x40));
    queue.add_used(&dma, chain.head_index(), 8).unwrap();
    assert_eq!(os.memory.read_u32(Gpa(PAGE_A.0 + 0x208)).unwrap(), 8);
    assert_eq!(dma.latched_fault(), None);
}

#[test]
fn a_ring_that_is_unmapped_under_the_device_latches_its_fault() {
    let (os, _, leaf) = one_page();
    os.memory.fill(PAGE_A, 4096, 0).unwrap();
    let mut queue = ring(&os);
    os.poke(leaf, 0);
    assert!(os.run(global(true)));
    let dma = os.dma(DEVICE);
    assert!(
        queue.pop_descriptor_chain(&dma).is_none(),
        "an empty ring, to virtio-queue"
    );
    let fault = dma.latched_fault().unwrap();
    assert_eq!(
        (fault.reason, fault.device),
        (FaultReason::ReadDenied, DEVICE)
    );
    assert_eq!(dma.latched_fault(), None, "taken by asking");
}

#[test]
fn the_first_fault_is_the_one_that_is_latched() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    let _ = dma.read_obj::<u32>(GuestAddress(0x5000));
    let _ = dma.read_obj::<u32>(GuestAddress(0x6000));
    let _ = os.dma(OTHER).read_obj::<u32>(GuestAddress(0x7000));
    assert_eq!(dma.latched_fault().unwrap().iova, Iova(0x5000));
    assert_eq!(os.dma(OTHER).latched_fault().unwrap().iova, Iova(0x7000));
}

#[test]
fn a_range_is_checked_with_no_trace() {
    let (os, _, leaf) = one_page();
    os.poke(leaf, PAGE_A.0 | 1);
    let dma = os.dma(DEVICE);
    let (state, journal) = (os.unit.save(), os.scenario.journal().len());
    let check = |at, count, access| dma.check_range(GuestAddress(at), count, access);
    assert!(check(TABLE, 4096, Permissions::Read));
    assert!(!check(TABLE, 4096, Permissions::ReadWrite));
    assert!(!check(TABLE, 4097, Permissions::Read));
    assert!(!check(u64::MAX, 2, Permissions::Read));
    assert!(state == os.unit.save());
    assert_eq!(os.scenario.journal().len(), journal);
    assert_eq!(dma.latched_fault(), None);
}

#[test]
fn a_load_of_an_unmapped_address_is_an_error_and_no_panic() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    let result: Result<u16, _> =
        dma.load(GuestAddress(0x5000), std::sync::atomic::Ordering::Acquire);
    assert!(result.is_err());
    assert!(dma.physical_memory().is_none());
}

#[test]
fn an_invalidation_waits_for_a_view_in_use() {
    let (os, _, leaf) = one_page();
    let dma = os.dma(DEVICE);
    let mut slices = dma
        .get_slices(GuestAddress(TABLE), 4, Permissions::Read)
        .unwrap();
    let view = slices.next().unwrap().unwrap();
    os.poke(leaf, 0);
    assert!(!os.run(global(true)), "not done while the view is held");
    let mut bytes = [0; 4];
    view.copy_to(&mut bytes);
    drop(slices);
    assert_eq!(&bytes, b"aaaa");
    assert_eq!(os.look(Gpa(0x3000)) as u32, 1, "done with it");
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::ReadDenied));
}
