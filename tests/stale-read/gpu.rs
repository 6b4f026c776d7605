//! A virtio-gpu driver of a few lines (virtio 1.2, §4.1 and §5.7), which asks
//! both devices for the same.

use crate::machine::Machine;
use crate::qtest::LONG;
use std::time::{Duration, Instant};

/// Entries of the queue.
const ENTRIES: u16 = 16;
/// Where the queue and the command buffers are, for the device.
const RINGS: u64 = 0x1_0000;
const PAGE: u64 = 4096;
const AVAILABLE: u64 = PAGE;
const USED: u64 = 2 * PAGE;
const REQUEST: u64 = 3 * PAGE;
const RESPONSE: u64 = 4 * PAGE;
/// Pages of all that.
pub const PAGES: u64 = 5;

// Commands and answers (§5.7.6.7).
const GET_DISPLAY_INFO: u32 = 0x100;
const RESOURCE_CREATE_2D: u32 = 0x101;
const SET_SCANOUT: u32 = 0x103;
const RESOURCE_FLUSH: u32 = 0x104;
const TRANSFER_TO_HOST_2D: u32 = 0x105;
const ATTACH_BACKING: u32 = 0x106;
const B8G8R8X8: u32 = 2;
const RESOURCE: u32 = 1;

/// One device under its driver.
pub struct Gpu {
    common: u64,
    notify: u64,
    /// Where the rings are in memory.
    rings: u64,
    sent: u16,
}

impl Gpu {
    /// Find a device's registers, at `window` from now on.
    pub fn find(machine: &mut Machine, device: u16, window: u32, rings: u64) -> Self {
        let bars = place(machine, device, window);
        let q = &mut machine.qtest;
        // Memory space and bus mastering.
        q.configure(device, 0x04, 6);
        let mut gpu = Self {
            common: 0,
            notify: 0,
            rings,
            sent: 0,
        };
        // §4.1.4: vendor-specific capabilities say where things are.
        let mut at = (q.config(device, 0x34) & 0xfc) as u8;
        while at != 0 {
            let head = q.config(device, at);
            if head & 0xff == 9 {
                let bar = (q.config(device, at + 4) & 0xff) as usize;
                let offset = u64::from(q.config(device, at + 8));
                let place = bars.get(bar).map_or(0, |bar| bar + offset);
                match head >> 24 {
                    1 => gpu.common = place,
                    // Queue 0, whose offset is 0 in both.
                    2 => gpu.notify = place,
                    _ => {}
                }
            }
            at = (head >> 8 & 0xfc) as u8;
        }
        assert!(gpu.common != 0 && gpu.notify != 0, "a modern virtio device");
        gpu
    }

    /// Reset to DRIVER_OK (§3.1.1), with the rings where the device is to
    /// find them.
    pub fn start(&mut self, machine: &mut Machine) {
        let q = &mut machine.qtest;
        let at = self.common;
        q.set(at + 0x14, 1, 0);
        for status in [1, 3] {
            q.set(at + 0x14, 1, status);
        }
        // VERSION_1 and ACCESS_PLATFORM.
        for (half, bits) in [(0, 0), (1, 3)] {
            q.set(at + 0x08, 4, half);
            q.set(at + 0x0c, 4, bits);
        }
        q.set(at + 0x14, 1, 11);
        assert_eq!(q.get(at + 0x14, 1), 11, "FEATURES_OK");
        q.set(at + 0x16, 2, 0);
        q.set(at + 0x18, 2, u64::from(ENTRIES));
        for (register, place) in [(0x20, 0), (0x28, AVAILABLE), (0x30, USED)] {
            let place = RINGS + place;
            q.set(at + register, 4, place & 0xffff_ffff);
            q.set(at + register + 4, 4, place >> 32);
        }
        q.set(at + 0x1c, 2, 1);
        q.set(at + 0x14, 1, 15);
    }

    /// Where the rings are for the device.
    pub const fn rings() -> u64 {
        RINGS
    }

    /// One command, and its answer's type; `None`: none came, as from a
    /// device that gave up.
    fn command(&mut self, machine: &mut Machine, kind: u32, body: &[u32]) -> Option<u32> {
        let q = &mut machine.qtest;
        // The header: type, flags, fence, context, ring and padding.
        let words = [&[kind, 0, 0, 0, 0, 0], body].concat();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        q.store(self.rings + REQUEST, &bytes);
        q.clear(self.rings + RESPONSE, PAGE);
        let descriptors = [
            (RINGS + REQUEST, bytes.len() as u64, 1u64, 1u64),
            (RINGS + RESPONSE, PAGE, 2, 0),
        ];
        for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            let at = self.rings + 16 * index as u64;
            q.set(at, 8, address);
            q.set(at + 8, 8, length | flags << 32 | next << 48);
        }
        let slot = u64::from(self.sent % ENTRIES);
        q.set(self.rings + AVAILABLE + 4 + 2 * slot, 2, 0);
        self.sent += 1;
        q.set(self.rings + AVAILABLE + 2, 2, u64::from(self.sent));
        q.set(self.notify, 2, 0);
        let start = Instant::now();
        while q.get(self.rings + USED + 2, 2) != u64::from(self.sent) {
            if start.elapsed() > LONG {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(q.get(self.rings + RESPONSE, 4) as u32)
    }

    /// A resource of the display's size, on the screen, with pages from
    /// `iova` on behind it.
    pub fn show(&mut self, machine: &mut Machine, (width, height): (u32, u32), iova: u64) {
        let pages = (width * height * 4).div_ceil(PAGE as u32);
        let mut backing = vec![RESOURCE, pages];
        for page in 0..u64::from(pages) {
            let at = iova + page * PAGE;
            backing.extend([at as u32, (at >> 32) as u32, PAGE as u32, 0]);
        }
        for (kind, body) in [
            (GET_DISPLAY_INFO, vec![]),
            (RESOURCE_CREATE_2D, vec![RESOURCE, B8G8R8X8, width, height]),
            (ATTACH_BACKING, backing),
            (SET_SCANOUT, vec![0, 0, width, height, 0, RESOURCE]),
        ] {
            let answer = self.command(machine, kind, &body);
            let good = answer.is_some_and(|answer| answer & 0xff00 == 0x1100);
            assert!(good, "command {kind:#x}: {answer:x?}");
        }
    }

    /// Have the device read the pages and show them; the answer to the
    /// reading.
    pub fn update(&mut self, machine: &mut Machine, (width, height): (u32, u32)) -> String {
        let whole = [0, 0, width, height];
        let transfer = [&whole[..], &[0, 0, RESOURCE, 0]].concat();
        let answer = self.command(machine, TRANSFER_TO_HOST_2D, &transfer);
        let flush = [&whole[..], &[RESOURCE, 0]].concat();
        self.command(machine, RESOURCE_FLUSH, &flush);
        match answer {
            Some(0x1100) => "RESP_OK_NODATA".to_owned(),
            Some(0x1200) => "RESP_ERR_UNSPEC".to_owned(),
            Some(other) => format!("{other:#06x}"),
            None => "no answer".to_owned(),
        }
    }
}

/// Give each memory BAR of a device a place from `window` on; where they are.
fn place(machine: &mut Machine, device: u16, window: u32) -> Vec<u64> {
    let q = &mut machine.qtest;
    let mut places = vec![0; 6];
    let mut next = window;
    let mut index = 0;
    while index < 6 {
        let register = 0x10 + 4 * index as u8;
        q.configure(device, register, u32::MAX);
        let mask = q.config(device, register);
        let wide = mask & 7 == 4;
        if mask != 0 && mask & 1 == 0 {
            let size = (!(mask & !0xf)).wrapping_add(1);
            next = next.next_multiple_of(size);
            q.configure(device, register, next);
            if wide {
                q.configure(device, register + 4, 0);
            }
            places[index] = u64::from(next);
            next += size;
        }
        index += if wide { 2 } else { 1 };
    }
    places
}
