#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;

#[test]
fn a_page_keeps_its_bytes_when_its_translation_is_dropped() {
    let memory = GuestMemory::new(16 * PAGE_SIZE).unwrap();
    memory
        .write_u64(Gpa(0x3008), 0x1122_3344_5566_7788)
        .unwrap();
    memory.drop_translations(Pfn(3), 1).unwrap();
    assert_eq!(memory.read_u64(Gpa(0x3008)).unwrap(), 0x1122_3344_5566_7788);
}

#[test]
fn an_access_past_the_end_is_refused_whole() {
    let memory = GuestMemory::new(PAGE_SIZE).unwrap();
    assert!(memory.write(Gpa(PAGE_SIZE - 4), &[1; 8]).is_err());
    assert_eq!(memory.read_u32(Gpa(PAGE_SIZE - 4)).unwrap(), 0);
    assert!(memory.read_u64(Gpa(u64::MAX - 3)).is_err());
}

#[test]
fn memory_above_three_gib_goes_on_at_four() {
    let memory = GuestMemory::new(LOW_LIMIT + 2 * PAGE_SIZE).unwrap();
    memory.write_u32(Gpa(HIGH_BASE + PAGE_SIZE), 7).unwrap();
    assert_eq!(memory.read_u32(Gpa(HIGH_BASE + PAGE_SIZE)).unwrap(), 7);
    assert!(memory.read_u32(Gpa(LOW_LIMIT)).is_err());
    assert!(
        !memory.contains(Gpa(LOW_LIMIT - 8), 16),
        "no access spans the hole"
    );
    assert_eq!(memory.end(), Pfn(HIGH_BASE / PAGE_SIZE + 2));
    assert_eq!(memory.slots().len(), 2);
}

#[test]
fn sizes_that_are_no_pages_are_refused() {
    for size in [0, 1, PAGE_SIZE + 1, u64::MAX] {
        assert!(matches!(
            GuestMemory::new(size),
            Err(MemoryError::BadSize(_))
        ));
    }
}

/// A memfd that nobody can shrink, as QEMU makes it.
fn sealed(size: u64) -> File {
    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("peer", flags).unwrap());
    file.set_len(size).unwrap();
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::SHRINK).unwrap();
    file
}

#[test]
fn a_peers_memory_is_seen_where_its_layout_says() {
    let file = sealed(4 * PAGE_SIZE);
    file.write_all_at(&7u32.to_le_bytes(), PAGE_SIZE + 8)
        .unwrap();
    let peer = GuestMemory::from_file(file, PAGE_SIZE).unwrap();
    assert_eq!(peer.read_u32(Gpa(HIGH_BASE + 8)).unwrap(), 7);
    assert!(peer.read_u32(Gpa(PAGE_SIZE)).is_err());
    assert_eq!(peer.address_of(8), Some((Gpa(8), PAGE_SIZE - 8)));
    let high = Some((Gpa(HIGH_BASE), 3 * PAGE_SIZE));
    assert_eq!(peer.address_of(PAGE_SIZE), high);
    assert_eq!(peer.address_of(4 * PAGE_SIZE), None);
}

#[test]
fn a_file_that_can_be_cut_short_is_refused() {
    let ours = GuestMemory::new(PAGE_SIZE).unwrap();
    let memfd = File::from(ours.fd().unwrap().try_clone_to_owned().unwrap());
    let plain = tempfile::tempfile().unwrap();
    plain.set_len(PAGE_SIZE).unwrap();
    for file in [memfd, plain] {
        let refused = GuestMemory::from_file(file, PAGE_SIZE);
        assert!(matches!(refused, Err(MemoryError::NotSealed)));
    }
}

#[test]
fn a_requester_prints_as_lspci_does() {
    assert_eq!(RequesterId::new(0, 2, 1).to_string(), "00:02.1");
    assert_eq!(RequesterId(0xff1f).to_string(), "ff:03.7");
}

proptest! {
    #[test]
    fn pages_spanned_agrees_with_counting(start in 0u64..20_000, length in 0u64..20_000) {
        let counted = (0..length).map(|i| (start + i) / PAGE_SIZE).fold((0, u64::MAX), |(n, last), p| {
            if p == last { (n, last) } else { (n + 1, p) }
        }).0;
        prop_assert_eq!(pages_spanned(start, length), counted);
    }

    #[test]
    fn restore_undoes_every_write(writes in prop::collection::vec((0u64..64 * 4096 - 8, any::<u64>()), 0..40),
                                  split in 0usize..40) {
        let memory = GuestMemory::new(64 * PAGE_SIZE).unwrap();
        let split = split.min(writes.len());
        for (at, value) in &writes[..split] { memory.write_u64(Gpa(*at), *value).unwrap(); }
        let mut before = vec![0; 64 * 4096];
        memory.read(Gpa(0), &mut before).unwrap();
        let image = memory.save().unwrap();
        for (at, value) in &writes[split..] { memory.write_u64(Gpa(*at), *value).unwrap(); }
        memory.restore(&image).unwrap();
        let mut after = vec![0; 64 * 4096];
        memory.read(Gpa(0), &mut after).unwrap();
        prop_assert!(before == after);
    }

    #[test]
    fn tracker_knows_what_was_written_and_puts_back_what_was(
        writes in prop::collection::vec((0u64..64 * 4096 - 8, 0u64..3), 0..40),
        cpu in prop::collection::vec((0u64..64, any::<bool>()), 0..8),
    ) {
        let memory = GuestMemory::new(64 * PAGE_SIZE).unwrap();
        memory.write_u64(Gpa(0x3000), 7).unwrap();
        let mut tracker = Tracker::new(&memory).unwrap();
        let before = tracker.image().clone();
        for (at, value) in &writes { memory.write_u64(Gpa(*at), *value).unwrap(); }
        // Another who maps the file tells of his writes by himself.
        let mut told = [0u64];
        for (page, zero) in cpu {
            memory.write_file_page(page, &[u8::from(!zero); 4096]).unwrap();
            told[0] |= 1 << page;
        }
        tracker.update(&memory, &told).unwrap();
        prop_assert_eq!(tracker.image(), &memory.save().unwrap());
        prop_assert_eq!(tracker.image().digest(), memory.save().unwrap().digest());

        tracker.restore(&memory, &before).unwrap();

        prop_assert_eq!(tracker.image(), &before);
        prop_assert_eq!(&memory.save().unwrap(), &before);
        prop_assert_eq!(tracker.image().digest(), before.digest());
    }
}
