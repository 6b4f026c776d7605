//! A machine of a few pages, flat, without a CPU.

use crate::executive::{Region, SERVICES, State};
use crate::{Call, Outcome, Platform, PlatformError, Protection, layout};
use journal::event::{Event, StackId};
use memory::{Gpa, GuestMemory, Gva, Pfn, RequesterId};
use scenario::Scenario;
use std::collections::BTreeMap;

/// Sixteen pages for the test's own objects.
pub const DATA: Gva = Gva(0xffff_8000_0000_0000);
/// Never mapped.
pub const NOWHERE: u64 = 0xffff_9000_0000_0000;
const STACK: Gva = Gva(0xffff_be00_0000_0000);
/// RSP of every call: the fifth argument lies 0x28 above.
const RSP: Gva = Gva(STACK.0 + 0x800);

pub struct TestPlatform {
    memory: GuestMemory,
    scenario: Scenario,
    pages: BTreeMap<u64, Pfn>,
}

impl Platform for TestPlatform {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }
    fn scenario(&self) -> &Scenario {
        &self.scenario
    }
    fn map(&mut self, at: Gva, frame: Pfn, _: Protection) -> Result<(), PlatformError> {
        self.pages.insert(at.page(), frame);
        Ok(())
    }
    fn unmap(&mut self, address: Gva) {
        self.pages.remove(&address.page());
    }
    fn translate(&self, address: Gva) -> Option<Gpa> {
        let frame = self.pages.get(&address.page())?;
        frame.base().checked_add(address.offset())
    }
    fn mmio_read(&mut self, _: Gpa, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: Gpa, _: u8, _: u64) {}
    fn config_read(&mut self, _: RequesterId, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn config_write(&mut self, _: RequesterId, _: u16, _: u8, _: u32) {}
    fn stack(&mut self) -> StackId {
        StackId(0)
    }
}

/// The executive in that machine, and a bump allocator for the test.
pub struct Machine {
    pub state: State,
    pub p: TestPlatform,
    next: u64,
}

impl Machine {
    pub fn new() -> Self {
        Self::with_settings(&[])
    }

    pub fn with_settings(settings: &[(&str, &str)]) -> Self {
        let mut p = TestPlatform {
            memory: GuestMemory::new(1 << 20).unwrap(),
            scenario: Scenario::for_test(),
            pages: BTreeMap::new(),
        };
        let region = Region {
            base: layout::SYSTEM_DATA,
            size: 0x1_0000,
        };
        let areas = [
            (region.base, 16),
            (layout::SHARED_DATA, 1),
            (DATA, 16),
            (STACK, 1),
        ];
        let mut frame = 1;
        for (base, pages) in areas {
            for page in 0..pages {
                let at = Gva(base.0 + page * 0x1000);
                p.map(at, Pfn(frame), Protection::WRITE).unwrap();
                frame += 1;
            }
        }
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut state = State::new("probe", &settings);
        state.init(&mut p, region).unwrap();
        Self { state, p, next: 0 }
    }

    /// Call a routine.
    pub fn call(&mut self, name: &str, arguments: &[u64]) -> Outcome {
        let mut registers = [0xdead_0000_0000_0000; 4];
        for (index, &value) in arguments.iter().enumerate() {
            match registers.get_mut(index) {
                Some(register) => *register = value,
                None => {
                    let slot = Gva(RSP.0 + 8 + 8 * index as u64);
                    self.p.write_u64(slot, value).unwrap();
                }
            }
        }
        let call = Call {
            registers,
            stack_pointer: RSP,
        };
        let (_, service) = SERVICES.iter().find(|(n, _)| *n == name).unwrap();
        service(&mut self.state, &mut self.p, &call)
    }

    /// Call a routine that returns.
    pub fn value(&mut self, name: &str, arguments: &[u64]) -> u64 {
        match self.call(name, arguments) {
            Outcome::Return(value) => value,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Call a routine that stops Windows: the code and what goes on.
    pub fn stop(&mut self, name: &str, arguments: &[u64]) -> (u32, [u64; 4], Option<u64>) {
        match self.call(name, arguments) {
            Outcome::Stop(stop) => (stop.code, stop.parameters, stop.go_on),
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Memory of the test's own.
    pub fn space(&mut self, bytes: usize) -> u64 {
        let at = DATA.0 + self.next;
        self.next += (bytes as u64).next_multiple_of(16);
        at
    }

    /// A copy of bytes in the machine.
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let at = self.space(bytes.len().max(1));
        self.p.write(Gva(at), bytes).unwrap();
        at
    }

    /// A terminated narrow text.
    pub fn narrow(&mut self, text: &str) -> u64 {
        self.bytes(format!("{text}\0").as_bytes())
    }

    /// A terminated wide text.
    pub fn wide(&mut self, text: &str) -> u64 {
        let bytes: Vec<u8> = text
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        self.bytes(&bytes)
    }

    /// A UNICODE_STRING.
    pub fn unicode(&mut self, text: &str) -> u64 {
        let source = self.wide(text);
        let string = self.space(16);
        self.value("RtlInitUnicodeString", &[string, source]);
        string
    }

    /// An empty UNICODE_STRING with room for `bytes`.
    pub fn room(&mut self, bytes: u16) -> u64 {
        let buffer = self.space(usize::from(bytes));
        let mut fields = vec![0, 0];
        fields.extend_from_slice(&bytes.to_le_bytes());
        fields.extend_from_slice(&[0; 4]);
        fields.extend_from_slice(&buffer.to_le_bytes());
        self.bytes(&fields)
    }

    pub fn u32(&self, at: u64) -> u32 {
        self.p.read_u32(Gva(at)).unwrap()
    }

    pub fn u64(&self, at: u64) -> u64 {
        self.p.read_u64(Gva(at)).unwrap()
    }

    /// What was printed, in order.
    pub fn printed(&self) -> Vec<String> {
        let bytes = self.p.scenario.journal().bytes();
        journal::read(bytes.as_slice())
            .unwrap()
            .0
            .into_iter()
            .filter_map(|record| match record.event {
                Event::DebugPrint { text } => Some(text),
                _ => None,
            })
            .collect()
    }
}

impl Machine {
    pub fn p_write_u32(&mut self, at: u64, value: u32) {
        self.p.write_u32(Gva(at), value).unwrap();
    }

    pub fn p_write_u64(&mut self, at: u64, value: u64) {
        self.p.write_u64(Gva(at), value).unwrap();
    }
}
