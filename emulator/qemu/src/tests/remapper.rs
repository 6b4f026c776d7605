//! Our virtio-iommu as a second function: a driver's requests by its queue,
//! and what the GPU reaches by them.

use super::*;
use iommu::VirtioIommu;
use memory::Iova;

const COMMON: u64 = 0;
const STATUS: u64 = 0x14;
const NOTIFY: u64 = 0x3000;
const CONFIG: u64 = 0x2000;
/// Where the driver has its things, in pages of memory.
const RINGS: [u64; 2] = [0x1000, 0x4000];
const REQUEST: u64 = 0x8000;
const ANSWER: u64 = 0x9000;
const REPORT: u64 = 0xa000;
const GPU: u32 = 8;

/// Two connections, and the driver of the virtio-iommu at work.
struct Machine {
    peer: Peer,
    gpu: UnixStream,
    memory: File,
    sent: u16,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = Server::listen(&folder.path().join("gpu")).unwrap();
        let mut peer = Peer::of(
            ServeConfig {
                iommu: Some(memory::RequesterId::new(0, 30, 0)),
                ..ServeConfig::default()
            },
            move |server, stream, stop| server.serve_both(stream, listener, stop),
        );
        peer.call(spec::VERSION, &version(0, 0, b"{}\0")).unwrap();
        // The IOMMU's conversation goes on before the GPU's client is there.
        let ram = memory(16);
        let whole = map(RW, 0, 0, 16 * PAGE);
        peer.call_with(spec::DMA_MAP, &whole, &[ram.as_fd()])
            .unwrap();
        let gpu = UnixStream::connect(folder.path().join("gpu")).unwrap();
        let mut machine = Self {
            peer,
            gpu,
            memory: ram,
            sent: 0,
        };
        machine.on_gpu(|peer, ram| {
            peer.call(spec::VERSION, &version(0, 0, b"{}\0")).unwrap();
            peer.call_with(spec::DMA_MAP, &whole, &[ram.as_fd()])
                .unwrap();
            bus_master(peer);
        });
        machine.start();
        machine
    }

    /// Say something on the GPU's connection.
    fn on_gpu(&mut self, say: impl FnOnce(&mut Peer, &File)) {
        let gpu = self.gpu.try_clone().unwrap();
        let iommu = self.peer.stream.replace(gpu);
        say(&mut self.peer, &self.memory);
        self.peer.stream = iommu;
    }

    fn start(&mut self) {
        let peer = &mut self.peer;
        bus_master(peer);
        for status in [1u8, 3] {
            peer.write_bar(STATUS, &[status]);
        }
        // Everything that is offered.
        for half in [0u32, 1] {
            peer.write_bar(COMMON, &half.to_le_bytes());
            peer.write_bar(COMMON + 8, &half.to_le_bytes());
            let offered = peer.read_bar(COMMON + 4, 4) as u32;
            peer.write_bar(COMMON + 0xc, &offered.to_le_bytes());
        }
        peer.write_bar(STATUS, &[11]);
        for (queue, ring) in RINGS.into_iter().enumerate() {
            peer.write_bar(0x16, &(queue as u16).to_le_bytes());
            for (at, address) in [(0x20, ring), (0x28, ring + 0x1000), (0x30, ring + 0x2000)] {
                peer.write_bar(at, &address.to_le_bytes());
            }
            peer.write_bar(0x1c, &[1, 0]);
            self.memory
                .write_all_at(&[0; 3 * PAGE as usize], ring)
                .unwrap();
        }
        peer.write_bar(STATUS, &[15]);
        assert_eq!(peer.read_bar(STATUS, 1), 15);
    }

    /// A chain of descriptors (address, length, writable) at the head of a
    /// ring, made available for the `count`th time.
    fn offer(&mut self, queue: usize, chain: &[(u64, u32, bool)], count: u16) {
        let ring = RINGS[queue];
        for (index, &(address, length, write)) in chain.iter().enumerate() {
            let more = u16::from(index + 1 < chain.len());
            let mut bytes = address.to_le_bytes().to_vec();
            bytes.extend(length.to_le_bytes());
            bytes.extend((more | u16::from(write) << 1).to_le_bytes());
            bytes.extend((index as u16 + 1).to_le_bytes());
            let at = ring + 16 * index as u64;
            self.memory.write_all_at(&bytes, at).unwrap();
        }
        let index = ring + 0x1002;
        self.memory
            .write_all_at(&count.to_le_bytes(), index)
            .unwrap();
        let bell = NOTIFY + 4 * queue as u64;
        self.peer.write_bar(bell, &(queue as u16).to_le_bytes());
    }

    /// Entries and last length of a used ring.
    fn used(&self, queue: usize) -> (u16, u32) {
        let ring = RINGS[queue] + 0x2000;
        let mut index = [0; 2];
        self.memory.read_exact_at(&mut index, ring + 2).unwrap();
        let index = u16::from_le_bytes(index);
        let at = ring + 8 + 8 * u64::from(index.wrapping_sub(1) % 256);
        let mut length = [0; 4];
        self.memory.read_exact_at(&mut length, at).unwrap();
        (index, u32::from_le_bytes(length))
    }

    /// A request and the status it gets; `None`: given back as it came. It is
    /// done when the doorbell's reply is here.
    fn send(&mut self, request: &[u8]) -> Option<u8> {
        self.memory.write_all_at(request, REQUEST).unwrap();
        self.sent += 1;
        let chain = [(REQUEST, request.len() as u32, false), (ANSWER, 4, true)];
        self.offer(0, &chain, self.sent);
        let (used, length) = self.used(0);
        assert_eq!(used, self.sent);
        let mut status = [0xff];
        self.memory.read_exact_at(&mut status, ANSWER).unwrap();
        (length != 0).then_some(status[0])
    }

    fn attach(&mut self, domain: u32) -> Option<u8> {
        self.send(&words(&[1, domain, GPU, 0, 0]))
    }

    fn map(&mut self, first: u64, last: u64, to: u64) -> Option<u8> {
        let range = [first, last, to].map(u64::to_le_bytes).concat();
        self.send(&[words(&[3, 1]), range, words(&[3])].concat())
    }

    fn unmap(&mut self, first: u64, last: u64) -> Option<u8> {
        let range = [first, last].map(u64::to_le_bytes).concat();
        self.send(&[words(&[4, 1]), range, words(&[0])].concat())
    }
}

fn bus_master(peer: &mut Peer) {
    let command = [region(4, 7, 2), vec![6, 0]].concat();
    peer.call(spec::REGION_WRITE, &command).unwrap();
}

#[test]
fn the_gpu_reaches_what_requests_map_and_no_more() {
    let mut machine = Machine::new();
    let handle = machine.peer.handle.clone();
    assert!(handle.device_read(Iova(0x5000), 1).is_err());
    assert_eq!(machine.attach(1), Some(0));
    assert_eq!(machine.map(0x4000_0000, 0x4000_0fff, 0xe000), Some(0));
    assert_eq!(handle.device_read(Iova(0x4000_0000), 1), Ok(vec![14]));
    assert_eq!(handle.mappings().unwrap().len(), 1);
    assert_eq!(machine.unmap(0x4000_0000, 0x4000_0fff), Some(0));
    assert!(handle.device_read(Iova(0x4000_0000), 1).is_err());
    let events = machine.peer.events();
    let told = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(told(|event| matches!(event, Event::Map { .. })), 1);
    assert_eq!(told(|event| matches!(event, Event::Unmap { .. })), 1);
    assert_eq!(told(|event| matches!(event, Event::Fault { .. })), 2);
    // The remapping unit's own reading is in no journal.
    assert_eq!(told(|event| matches!(event, Event::Notify { .. })), 0);
}

#[test]
fn what_the_client_would_do_for_the_device_goes_through_our_unit() {
    let mut machine = Machine::new();
    let handle = machine.peer.handle.clone();
    machine.attach(1);
    machine.map(0x4000_0000, 0x4000_0fff, 0xe000);
    assert_eq!(handle.peer_read(Iova(0x4000_0000), 1), Ok(vec![14]));
    assert!(handle.peer_read(Iova(0xe000), 1).is_err());
    machine.offer(1, &[(REPORT, 24, true)], 1);
    assert_eq!(machine.used(1), (1, 24), "the guest hears of it");
}

#[test]
fn a_hostile_request_has_its_status_and_the_next_is_done() {
    let mut machine = Machine::new();
    let nobody = words(&[1, 1, 9, 0, 0]);
    assert_eq!(machine.send(&nobody), Some(6));
    assert_eq!(machine.send(&[0xff; 64]), None);
    assert_eq!(machine.send(&[3]), None);
    assert_eq!(machine.map(0, 0xfff, 0), Some(6));
    assert_eq!(machine.attach(1), Some(0));
    assert_eq!(machine.map(0, u64::MAX, 0), Some(5));
    assert_eq!(machine.map(0x800, 0xfff, 0), Some(5));
    assert_eq!(machine.map(0, 0xfff, 0), Some(0));
    assert_eq!(machine.map(0, 0xffff, 0), Some(4));
}

#[test]
fn faults_are_reported_once_there_are_buffers_for_them() {
    let mut machine = Machine::new();
    let handle = machine.peer.handle.clone();
    let _ = handle.device_read(Iova(0x7_0000), 4);
    machine.attach(1);
    let _ = handle.device_write(Iova(0x8_0000), vec![1]);
    // Too small for a report: it goes back empty. (The same descriptors.)
    machine.offer(1, &[(REPORT, 8, true)], 1);
    assert_eq!(machine.used(1), (1, 0));
    for (count, reason, flags, address) in
        [(2u16, 1u32, 0x101u32, 0x7_0000u64), (3, 2, 0x102, 0x8_0000)]
    {
        machine.offer(1, &[(REPORT, 24, true)], count);
        assert_eq!(machine.used(1), (count, 24));
        let mut report = [0; 24];
        machine.memory.read_exact_at(&mut report, REPORT).unwrap();
        let wanted = [
            words(&[reason, flags, GPU, 0]),
            address.to_le_bytes().to_vec(),
        ];
        assert_eq!(report[..], wanted.concat());
    }
}

#[test]
fn the_configuration_is_the_units_and_only_bypass_can_be_written() {
    let mut machine = Machine::new();
    let config: Vec<u8> = (0..40)
        .map(|at| machine.peer.read_bar(CONFIG + at, 1) as u8)
        .collect();
    assert_eq!(config, VirtioIommu::new(&[]).config());
    let handle = machine.peer.handle.clone();
    for (at, value) in [(0, 0xff), (36, 2), (37, 1)] {
        machine.peer.write_bar(CONFIG + at, &[value]);
    }
    assert!(handle.device_read(Iova(0xe000), 1).is_err());
    machine.peer.write_bar(CONFIG + 36, &[1]);
    assert_eq!(machine.peer.read_bar(CONFIG + 36, 1), 1);
    assert_eq!(handle.device_read(Iova(0xe000), 1), Ok(vec![14]));
    // A reset by the driver leaves it, that of the machine does not.
    machine.peer.write_bar(STATUS, &[0]);
    assert_eq!(handle.device_read(Iova(0xe000), 1), Ok(vec![14]));
    machine.peer.call(spec::DEVICE_RESET, &[]).unwrap();
    assert_eq!(machine.peer.read_bar(CONFIG + 36, 1), 0);
}

#[test]
fn a_reset_takes_the_mappings_away() {
    let mut machine = Machine::new();
    machine.attach(1);
    machine.map(0, 0xfff, 0xe000);
    machine.peer.call(spec::DEVICE_RESET, &[]).unwrap();
    let handle = machine.peer.handle.clone();
    assert!(handle.mappings().unwrap().is_empty());
    machine.sent = 0;
    machine.start();
    assert_eq!(machine.map(0, 0xfff, 0xe000), Some(6));
}

#[test]
fn rings_that_are_nowhere_stop_the_unit_and_not_the_server() {
    let mut machine = Machine::new();
    let index = RINGS[0] + 0x1002;
    machine.memory.write_all_at(&[0, 0x80], index).unwrap();
    machine.peer.write_bar(NOTIFY, &[0, 0]);
    assert_eq!(machine.peer.read_bar(STATUS, 1) & 0x40, 0x40);
    assert!(machine.peer.handle.mappings().unwrap().is_empty());
}

#[test]
fn a_client_that_goes_ends_the_run_whichever_it_is() {
    let Machine { peer, gpu, .. } = Machine::new();
    drop(gpu);
    assert_eq!(peer.ended().unwrap(), Ended::Closed);
}
