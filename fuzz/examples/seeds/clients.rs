//! What a client of vfio-user and a driver of a virtio-iommu say in a good
//! day, in the form that the fuzz targets take.

/// Commands (QEMU's `docs/interop/vfio-user.rst`).
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const GET_REGION_INFO: u16 = 5;
const GET_IRQ_INFO: u16 = 7;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const RESET: u16 = 13;
/// The target's own: the guest writes its memory.
const GUEST_WRITES: u16 = 14;

/// Bits of a message's id that mean something to the target: it is for the
/// second function; it comes with the file of guest memory.
const SECOND: u16 = 0x100;
const WITH_FILE: u16 = 0x200;

/// Regions: BAR 0, the one by which a guest tells of its memory,
/// configuration space.
const BAR: u32 = 0;
const CLAIMS: u32 = 2;
const CONFIG: u32 = 7;

/// Guest-physical addresses, which are IOVAs too: three pages of rings, then
/// commands, answers, backing.
const RINGS: u64 = 0;
const COMMANDS: u64 = 0x3000;
const ANSWERS: u64 = 0x4000;
const BACKING: u64 = 0x5000;

/// Messages, one after the other.
#[derive(Default)]
struct Talk {
    bytes: Vec<u8>,
    function: u16,
    /// Commands made available so far.
    made: u16,
}

impl Talk {
    fn say(&mut self, command: u16, body: &[u8]) {
        let file = if command == DMA_MAP { WITH_FILE } else { 0 };
        let size = 16 + body.len() as u32;
        self.bytes
            .extend_from_slice(&(self.function | file).to_le_bytes());
        self.bytes.extend_from_slice(&command.to_le_bytes());
        self.bytes.extend_from_slice(&size.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(body);
    }

    fn access(&mut self, command: u16, region: u32, offset: u64, count: u32, data: &[u8]) {
        let head = [&offset.to_le_bytes()[..], &words(&[region, count])].concat();
        self.say(command, &[&head, data].concat());
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        self.access(REGION_WRITE, region, offset, data.len() as u32, data);
    }

    fn guest(&mut self, at: u64, bytes: &[u8]) {
        self.say(
            GUEST_WRITES,
            &[&(at as u16).to_le_bytes()[..], bytes].concat(),
        );
    }

    /// Read and write, or read only.
    fn map(&mut self, flags: u32, offset: u64, address: u64, size: u64) {
        let places = longs(&[offset, address, size]);
        self.say(DMA_MAP, &[&words(&[32, flags])[..], &places].concat());
    }

    fn unmap(&mut self, flags: u32, address: u64, size: u64) {
        let range = longs(&[address, size]);
        self.say(DMA_UNMAP, &[&words(&[24, flags])[..], &range].concat());
    }

    /// What a client asks before the guest runs.
    fn look(&mut self) {
        self.say(GET_INFO, &words(&[16, 0, 0, 0]));
        for index in 0..9 {
            self.say(GET_REGION_INFO, &words(&[32, 0, index, 0, 0, 0, 0, 0]));
        }
        for index in 0..5 {
            self.say(GET_IRQ_INFO, &words(&[16, 0, index, 0]));
        }
        self.access(REGION_READ, CONFIG, 0, 256, &[]);
        self.say(SET_IRQS, &words(&[20, 1 | 32, 2, 0, 0]));
    }

    /// A driver's way to DRIVER_OK, with queue 0 (virtio 1.2 §3.1.1).
    fn start(&mut self) {
        self.write(CONFIG, 4, &[6, 0]);
        for status in [0, 1, 3] {
            self.write(BAR, 0x14, &[status]);
        }
        self.access(REGION_READ, BAR, 4, 4, &[]);
        for (select, features) in [(0u32, 0xffff_ffffu32), (1, 3)] {
            self.write(BAR, 8, &select.to_le_bytes());
            self.write(BAR, 12, &features.to_le_bytes());
        }
        self.write(BAR, 0x14, &[11]);
        for (offset, page) in [(0x20, 0), (0x28, 1), (0x30, 2)] {
            self.write(BAR, offset, &(RINGS + page * 0x1000).to_le_bytes());
        }
        self.write(BAR, 0x1c, &[1, 0]);
        self.write(BAR, 0x14, &[15]);
        self.access(REGION_READ, BAR, 0x2000, 16, &[]);
    }

    /// A request that the device reads, and room for its answer; with the
    /// doorbell.
    fn request(&mut self, bytes: &[u8], room: u32) {
        let slot = self.made % 8;
        let at = COMMANDS + u64::from(slot) * 0x100;
        let answer = ANSWERS + u64::from(slot) * 0x200;
        self.guest(at, bytes);
        let (head, tail) = (slot * 2, slot * 2 + 1);
        let descriptor = |address: u64, length: u32, flags: u16, next: u16| {
            let rest = [flags.to_le_bytes(), next.to_le_bytes()].concat();
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &rest].concat()
        };
        let table = [
            descriptor(at, bytes.len() as u32, 1, tail),
            descriptor(answer, room, 2, 0),
        ];
        self.guest(RINGS + 16 * u64::from(head), &table.concat());
        let ring = RINGS + 0x1000;
        self.guest(ring + 4 + 2 * u64::from(self.made), &head.to_le_bytes());
        self.made += 1;
        self.guest(ring + 2, &self.made.to_le_bytes());
        self.write(BAR, 0x3000, &[0, 0]);
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

/// A control command of the GPU's: type, and what follows the header (§5.7.6.7).
fn command(kind: u32, body: &[u32]) -> Vec<u8> {
    words(&[&[kind, 1, 7, 0, 0, 0], body].concat())
}

/// A guest behind the client's remapping unit: its pages are mapped, it draws,
/// and its pages are unmapped, the backing while the device may still use it.
pub fn client() -> Vec<u8> {
    let mut talk = Talk::default();
    talk.look();
    talk.map(3, 0, 0, 0x5000);
    for page in 0..4 {
        let at = BACKING + page * 0x1000;
        talk.map(1, at, at, 0x1000);
    }
    talk.start();
    let rect = [0, 0, 32, 32];
    let backing = words(&[BACKING as u32, 0, 0x4000, 0]);
    talk.request(&command(0x100, &[]), 408);
    talk.request(&command(0x10a, &[0, 0]), 0x200);
    talk.request(&command(0x101, &[1, 2, 32, 32]), 24);
    talk.request(&[command(0x106, &[1, 1]), backing.clone()].concat(), 24);
    talk.request(&command(0x103, &[&rect[..], &[0, 1]].concat()), 24);
    talk.request(&command(0x105, &[&rect[..], &[0, 0, 1, 0]].concat()), 24);
    talk.request(&command(0x104, &[&rect[..], &[1, 0]].concat()), 24);
    // A blob on the screen, and its page gone.
    let blob = command(0x10c, &[2, 1, 1, 1, 0, 0, 0x4000, 0]);
    talk.request(&[blob, backing].concat(), 24);
    let picture = [0, 2, 32, 32, 2, 0, 128, 0, 0, 0, 0, 0, 0, 0];
    talk.request(&command(0x10d, &[&rect[..], &picture].concat()), 24);
    talk.unmap(0, BACKING, 0x1000);
    talk.request(&command(0x104, &[&rect[..], &[2, 0]].concat()), 24);
    talk.request(&command(0x107, &[1, 0]), 24);
    talk.request(&command(0x102, &[2, 0]), 24);
    talk.access(REGION_READ, BAR, 0x1000, 1, &[]);
    talk.unmap(2, 0, 0);
    talk.say(RESET, &[]);
    talk.bytes
}

/// A guest that tells of its memory, by the region in BAR 2: of a page that is
/// mapped, by each kind of address, from its allocation on.
pub fn claims() -> Vec<u8> {
    let mut talk = Talk::default();
    talk.map(3, 0, 0, 0x5000);
    talk.start();
    for space in [0, 1 << 8] {
        talk.write(CLAIMS, 0x20, &longs(&[7]));
        talk.write(CLAIMS, 0x28, &words(&[1]));
        talk.write(CLAIMS, 0x800, &longs(&[COMMANDS, ANSWERS]));
        for operation in [1 | 2 << 16, 2 | 1 << 16, 3, 4] {
            talk.write(CLAIMS, 0x30, &words(&[operation | space]));
        }
        talk.access(REGION_READ, CLAIMS, 0x0c, 12, &[]);
    }
    talk.write(CLAIMS, 0x30, &words(&[5]));
    talk.bytes
}

/// A guest that programs our own virtio-iommu: the second function has all of
/// memory, and its driver maps what the first one uses.
pub fn remapper() -> Vec<u8> {
    let mut talk = Talk {
        function: SECOND,
        ..Talk::default()
    };
    talk.look();
    talk.map(3, 0, 0, 0x1_0000);
    talk.start();
    // The one endpoint is the GPU, 00:01.0 (§5.13.6).
    let attach = words(&[1, 1, 8, 0, 0]);
    let map = |first: u64, last: u64, to: u64, flags: u32| {
        [words(&[3, 1]), longs(&[first, last, to]), words(&[flags])].concat()
    };
    let unmap = [words(&[4, 1]), longs(&[0, 0xffff, 0])].concat();
    talk.request(&[words(&[5, 8]), vec![0; 64]].concat(), 0x100);
    talk.request(&attach, 4);
    talk.request(&map(0, 0x4fff, 0, 3), 4);
    talk.request(&map(0x5000, 0x8fff, 0x5000, 1), 4);
    talk.function = 0;
    talk.look();
    talk.start();
    talk.write(BAR, 0x3000, &[0, 0]);
    talk.function = SECOND;
    talk.request(&unmap, 4);
    talk.request(&words(&[2, 1, 8, 0, 0]), 4);
    talk.say(RESET, &[]);
    talk.bytes
}

/// The steps of the target: requests of few numbers, accesses, faults taken,
/// bypass on and off, a reset.
pub fn requests() -> Vec<u8> {
    let mut bytes = Vec::new();
    // Kind, domain, flags, first page, pages, target page.
    let mut small = |device: u8, request: [u8; 6]| {
        bytes.push(2 | device << 3);
        bytes.extend_from_slice(&request);
    };
    for device in [0, 1] {
        small(device, [1, 1, 0, 0, 0, 0]);
        small(device, [3, 1, 3, 4 * device, 4, 2]);
        small(device, [3, 1, 1, 16 + 4 * device, 2, 8]);
    }
    small(0, [1, 2, 1, 0, 0, 0]);
    small(0, [5, 0, 0, 0, 0, 0]);
    for page in [0u64, 4, 16, 20, 40] {
        bytes.push(5 | 8);
        bytes.extend_from_slice(&(page << 12).to_le_bytes());
    }
    bytes.extend_from_slice(&[6, 6 | 0x10, 6]);
    let mut small = |request: [u8; 6]| {
        bytes.push(2 | 8);
        bytes.extend_from_slice(&request);
    };
    small([4, 1, 0, 0, 16, 0]);
    small([4, 1, 0, 16, 4, 0]);
    small([2, 1, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[7 | 0x10, 7, 7 | 0x20]);
    bytes
}
