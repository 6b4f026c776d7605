//! Entry for fuzz targets: bytes become rings, commands, register accesses
//! and steps. Whatever they say, the device must not panic, and must come to
//! rest after a bounded number of steps.

use crate::spec::{F_EDID, F_RESOURCE_BLOB, F_RESOURCE_UUID, command};
use crate::{GpuConfig, Stepped, VirtioGpu};
use iommu::testing::{Os, READ_WRITE};
use memory::{Gpa, Iova, RequesterId};
use pci::layout;
use pci::spec::virtio::{DESC_NEXT, DESC_WRITE, common};
use scenario::{Part, Plan, Scenario};

/// RAM of the guest, bytes.
const RAM: u64 = 1 << 20;
/// Data lies from here on; tables below.
const DATA: u64 = 0x8_0000;
/// Where the sane buffers are: command, and response a page later.
const COMMAND: u64 = DATA + 0x6000;
/// Bytes of data that the input fills.
const WINDOW: u64 = 0x1_0000;
/// Most pixels: a transfer takes a step for each page, entry and row.
const PIXEL_BYTES: u64 = 1 << 18;
/// More steps than any input can ask for: at most 256 + 16 buffers, each of
/// at most 1024 pieces in and out, and one transfer's rows, pages and entries;
/// and one vsync of one scanout: rows of at most five pages, and entries.
const MAX_STEPS: u64 = 272 * (2 * 1024 + 5 + 16_384 * 2 + 64) + 4096 * 5 + 16_384;

/// The device's own features: all of them.
const OWN_FEATURES: u64 = F_EDID | F_RESOURCE_UUID | F_RESOURCE_BLOB;

/// Queue addresses, by register.
const RINGS: [(common::Register, u64); 3] = [
    (common::QUEUE_DESC, DATA),
    (common::QUEUE_DRIVER, DATA + 0x1000),
    (common::QUEUE_DEVICE, DATA + 0x2000),
];

/// Bytes taken from the front; zeros when there are none left.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |n, _| n << 8 | u64::from(self.byte()))
    }
}

/// Run one input; says how many steps were left to do at its end.
///
/// # Panics
/// If the device does not come to rest: that is what is looked for.
pub fn fuzz(data: &[u8]) -> u64 {
    let mut input = Input(data);
    let flags = input.byte();
    let mut plan = Plan::default();
    if flags & 1 != 0 {
        plan.part = Part::All;
    }
    let os = Os::new(RAM, Scenario::new(plan, journal::Journal::disabled()));
    let config = GpuConfig {
        max_pixel_bytes: PIXEL_BYTES,
        ..GpuConfig::default()
    };
    if flags & 2 != 0 {
        translate(&os, config.device);
    }
    let mut gpu = VirtioGpu::new(&config);
    start(&os, &mut gpu);
    while !input.0.is_empty() {
        act(&os, &mut gpu, &mut input);
    }
    let mut steps = 0;
    while gpu.step_landing(os.dma(config.device)) != Stepped::Idle {
        steps += 1;
        assert!(steps < MAX_STEPS, "the device does not come to rest");
    }
    assert!(
        !gpu.has_work(),
        "the device rests and says that it has work"
    );
    steps
}

/// Map most of the data one to one; the last pages not at all.
fn translate(os: &Os, device: RequesterId) {
    os.start();
    let top = os.attach(device, 1, 4);
    for page in 0..12 {
        let at = DATA + page * 0x1000;
        os.map(top, Iova(at), Gpa(at), READ_WRITE);
    }
}

/// What a driver does before it works; the input may undo it.
fn start(os: &Os, gpu: &mut VirtioGpu) {
    let dma = os.dma(gpu.requester());
    let mut set = |(offset, size): common::Register, value| {
        gpu.bar_write(
            dma,
            layout::TRANSPORT_BAR,
            layout::COMMON + offset,
            size,
            value,
        );
    };
    set(common::DRIVER_FEATURE_SELECT, 0);
    set(common::DRIVER_FEATURE, 1 << 28 | OWN_FEATURES);
    set(common::DRIVER_FEATURE_SELECT, 1);
    set(common::DRIVER_FEATURE, 3);
    set(common::DEVICE_STATUS, 0xb);
    for queue in 0..2 {
        set(common::QUEUE_SELECT, queue);
        for (register, address) in RINGS {
            set(register, address + queue * 0x3000);
        }
        set(common::QUEUE_ENABLE, 1);
    }
    set(common::DEVICE_STATUS, 0xf);
    // One sane buffer in each queue, at descriptor 0, which every slot of the
    // available ring names.
    for queue in 0..2 {
        let table = Gpa(DATA + queue * 0x3000);
        let buffers = [
            (COMMAND, DESC_NEXT, 1u16),
            (COMMAND + 0x1000, DESC_WRITE, 0u16),
        ];
        let bytes: Vec<u8> = buffers
            .into_iter()
            .flat_map(|(address, flags, next)| {
                let low = u128::from(address) | 256 << 64;
                (low | u128::from(flags) << 96 | u128::from(next) << 112).to_le_bytes()
            })
            .collect();
        let _ = os.memory.write(table, &bytes);
    }
}

/// A command, and one more buffer in the ring of `queue`.
fn offer(os: &Os, input: &mut Input<'_>, queue: u64) {
    let first = if queue == 0 { 0x100 } else { 0x300 };
    let kind = match first + u32::from(input.byte() % 16) {
        command::GET_CAPSET_INFO => command::RESOURCE_MAP_BLOB,
        kind => kind,
    };
    let _ = os.memory.write_u32(Gpa(COMMAND), kind);
    for word in 0..u64::from(input.byte() % 20) {
        let value = match input.byte() {
            small @ 0..=0x7f => u32::from(small % 40),
            0x80..=0xbf => (DATA + 0x8000) as u32,
            _ => input.number(4) as u32,
        };
        let _ = os.memory.write_u32(Gpa(COMMAND + 24 + 4 * word), value);
    }
    let index = Gpa(DATA + queue * 0x3000 + 0x1002);
    let mut bytes = [0; 2];
    if os.memory.read(index, &mut bytes).is_ok() {
        let next = u16::from_le_bytes(bytes).wrapping_add(1);
        let _ = os.memory.write(index, &next.to_le_bytes());
    }
}

fn act(os: &Os, gpu: &mut VirtioGpu, input: &mut Input<'_>) {
    let dma = os.dma(gpu.requester());
    match input.byte() % 9 {
        // Time: now and then a vsync.
        8 => os.scenario.advance(input.number(3)),
        // Memory: a run of bytes.
        0 => {
            let at = DATA + input.number(2) % WINDOW;
            let bytes: Vec<u8> = (0..input.byte() % 65).map(|_| input.byte()).collect();
            let _ = os.memory.write(Gpa(at), &bytes);
        }
        1..=3 => {
            let queue = u64::from(input.byte() % 2);
            offer(os, input, queue);
            let doorbell = layout::NOTIFY + queue * u64::from(layout::NOTIFY_MULTIPLIER);
            gpu.bar_write(dma, layout::TRANSPORT_BAR, doorbell, 2, queue);
        }
        4 => {
            let bar = input.byte() % 2;
            let (offset, size, value) = (input.number(2), input.byte() % 9, input.number(4));
            gpu.bar_write(dma, bar, offset % 0x4000, size, value);
            let _ = gpu.bar_read(dma, bar, offset % 0x4000, size);
        }
        5 => {
            let (offset, size) = (input.number(2) as u16, input.byte() % 5);
            let value = input.number(4);
            gpu.config_write(dma, offset, size, value as u32);
            let _ = gpu.config_read(dma, offset, size);
        }
        _ => {
            for _ in 0..input.byte() {
                gpu.step(dma);
            }
        }
    }
}
