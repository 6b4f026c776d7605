//! A driver's worth of address space with hand-assembled code in it.

use crate::vm::{AddressSpace, FrameRange, Gpr, Protection, RunLimit, Trap, Vm};
use iced_x86::code_asm::CodeAssembler;
use memory::{GuestMemory, Gva, Pfn};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const CODE: Gva = Gva(0xffff_f800_0010_0000);
pub const DATA: Gva = Gva(0xffff_f800_0020_0000);
pub const STACK: Gva = Gva(0xffff_f800_0030_0000);
pub const STACK_TOP: u64 = STACK.0 + 0x4000;
/// The frame behind the first page of [`DATA`].
pub const DATA_FRAME: Pfn = Pfn(0x210);
/// Where nothing is RAM.
pub const MMIO: Gva = Gva(0xffff_f800_0040_0000);
pub const MMIO_GPA: u64 = 0xd000_0000;

pub struct Machine {
    pub vm: Vm,
    pub space: AddressSpace,
}

pub fn space() -> AddressSpace {
    let memory = Arc::new(GuestMemory::new(8 << 20).unwrap());
    let frames = FrameRange {
        first: Pfn(0x400),
        count: 0x200,
    };
    AddressSpace::new(memory, frames).unwrap()
}

impl Machine {
    /// 4 pages of code (executable, not writable), 16 of data, 4 of stack,
    /// one of MMIO; RIP at the code.
    pub fn new(code: &[u8]) -> Self {
        let mut space = space();
        let map = [
            (CODE, Pfn(0x200), 4, Protection::CODE),
            (DATA, DATA_FRAME, 16, Protection::DATA),
            (STACK, Pfn(0x230), 4, Protection::DATA),
            (MMIO, Pfn(MMIO_GPA >> 12), 1, Protection::DATA),
        ];
        for (gva, frame, pages, protection) in map {
            space.map_range(gva, frame, pages, protection).unwrap();
        }
        space.write(CODE, code).unwrap();
        let vm = Vm::new(&space).expect("these tests need a usable /dev/kvm");
        let mut machine = Self { vm, space };
        let mut registers = machine.vm.registers();
        registers.rip = CODE.0;
        registers[Gpr::Rsp] = STACK_TOP - 0x100;
        machine.vm.set_registers(&registers).unwrap();
        machine
    }

    pub fn assemble(write: impl FnOnce(&mut CodeAssembler)) -> Self {
        Self::new(&assemble(CODE, write))
    }

    /// Up to the next trap; a driver that does not trap is a failed test.
    pub fn run(&mut self) -> Trap {
        let limit = RunLimit {
            deadline: Some(Instant::now() + Duration::from_secs(10)),
            stop: None,
        };
        self.vm.run(&mut self.space, &limit).unwrap()
    }

    pub fn get(&self, register: Gpr) -> u64 {
        self.vm.registers()[register]
    }

    pub fn set(&mut self, register: Gpr, value: u64) {
        let mut registers = self.vm.registers();
        registers[register] = value;
        self.vm.set_registers(&registers).unwrap();
    }

    pub fn push(&mut self, value: u64) {
        let mut registers = self.vm.registers();
        registers[Gpr::Rsp] -= 8;
        self.space
            .write_u64(Gva(registers[Gpr::Rsp]), value)
            .unwrap();
        self.vm.set_registers(&registers).unwrap();
    }

    pub fn jump(&mut self, rip: Gva) {
        let mut registers = self.vm.registers();
        registers.rip = rip.0;
        self.vm.set_registers(&registers).unwrap();
    }

    pub fn rip(&self) -> Gva {
        Gva(self.vm.registers().rip)
    }
}

pub fn assemble(at: Gva, write: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(64).unwrap();
    write(&mut assembler);
    assembler.assemble(at.0).unwrap()
}
