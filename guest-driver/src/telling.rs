//! Telling whose memory is whose, to dmasan under QEMU: a region of the device
//! that no other device has, and that a vendor data capability shows
//! (docs/qemu.md). Without the capability nothing is told.

use crate::spec::gpu::MemEntry;
use crate::spec::nt::PAGE_SIZE;
use crate::spec::telling::{
    ALLOCATE, COOKIE, DOORBELL, ENTRIES, EXTEND, FREE, PAGES_MAX, RESULT, RETIRE, TAG, WINDOW,
};
use crate::sync::SpinLock;
use crate::virtio::Window;

/// Cookie, tag, window and doorbell are one set of registers.
static REGISTERS: SpinLock<()> = SpinLock::new(());

/// The region, mapped.
#[derive(Clone, Copy)]
pub struct Telling(Window);

impl Telling {
    /// In a mapped window, if there is one.
    pub fn new(window: Window) -> Option<Self> {
        window.register::<u64>(WINDOW + 8 * (ENTRIES - 1))?;
        Some(Self(window))
    }

    /// The pages in `runs` are memory that is called `cookie` from now on.
    #[inline(never)]
    pub fn allocated(self, cookie: u64, tag: u32, runs: impl Iterator<Item = MemEntry>) {
        let mut list = [0; ENTRIES];
        let mut filled = 0;
        let mut operation = ALLOCATE;
        for run in runs {
            let mut address = run.address;
            let mut left = u64::from(run.length).div_ceil(PAGE_SIZE as u64);
            while left != 0 {
                if filled == ENTRIES {
                    self.ring(cookie, tag, operation, &list);
                    operation = EXTEND;
                    filled = 0;
                }
                let pages = left.min(PAGES_MAX);
                list[filled] = address | (pages - 1);
                filled += 1;
                address += pages * PAGE_SIZE as u64;
                left -= pages;
            }
        }
        self.ring(cookie, tag, operation, &list[..filled]);
    }

    /// It is about to be freed; the device is done with it.
    #[inline(never)]
    pub fn retired(self, cookie: u64) {
        self.ring(cookie, 0, RETIRE, &[]);
    }

    /// It was freed, and its mapping is gone.
    #[inline(never)]
    pub fn freed(self, cookie: u64) {
        self.ring(cookie, 0, FREE, &[]);
    }

    fn ring(self, cookie: u64, tag: u32, operation: u32, list: &[u64]) {
        let _held = REGISTERS.lock();
        self.0.write(COOKIE, cookie);
        self.0.write(TAG, tag);
        for (index, entry) in list.iter().enumerate() {
            self.0.write(WINDOW + 8 * index, *entry);
        }
        self.0
            .write(DOORBELL, operation | (list.len() as u32) << 16);
        // Writes may be posted: this comes back when all of them were taken,
        // before anybody can be given the pages.
        self.0.read32(RESULT);
    }
}
