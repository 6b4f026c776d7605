//! All of Windows on a small machine, called by name.

use crate::dxgk::{DEVICE_HANDLE, DomainMode};
use crate::mm::testing::{DEVICE, TestMachine, state};
use crate::{Call, Outcome, Platform, Protection, Windows, dxgk, executive, hal, layout};
use journal::event::{Breach, Event};
use memory::{Gva, PAGE_SIZE, Pfn};

/// The test's own objects, a page after another.
const DATA: Gva = Gva(0xffff_8000_0000_0000);
/// Never mapped.
pub const NOWHERE: u64 = 0xffff_9000_0000_0000;
const STACK: Gva = Gva(0xffff_be00_0000_0000);
/// `hAdapter`.
pub const ADAPTER: u64 = DEVICE_HANDLE;

pub struct World {
    pub windows: Windows,
    pub machine: TestMachine,
    next: u64,
}

impl World {
    pub fn new() -> Self {
        let mut machine = TestMachine::new();
        let mut windows = Windows::new(
            executive::State::new("test", &[]),
            state(),
            hal::State::default(),
            dxgk::State::new(DEVICE, DomainMode::Isolation),
            [],
        );
        let areas = [
            (layout::SYSTEM_DATA, 16),
            (layout::SHARED_DATA, 1),
            (layout::DXGK_DATA, 4),
        ];
        for (base, pages) in areas {
            for page in 0..pages {
                let frame = windows.mm.reserve_frame(&mut machine).unwrap();
                let at = Gva(base.0 + page * PAGE_SIZE);
                machine.map(at, frame, Protection::WRITE).unwrap();
            }
        }
        for page in 0..8 {
            let at = Gva(DATA.0 + page * PAGE_SIZE);
            machine.map(at, Pfn(2 + page), Protection::WRITE).unwrap();
        }
        let region = executive::Region {
            base: layout::SYSTEM_DATA,
            size: 0x1_0000,
        };
        windows.executive.init(&mut machine, region).unwrap();
        windows
            .hal
            .init(&mut machine, &mut windows.mm, &[DEVICE])
            .unwrap();
        Self {
            windows,
            machine,
            next: 0,
        }
    }

    pub fn call(&mut self, name: &str, arguments: &[u64]) -> Outcome {
        let thunk = self.windows.resolve_routine("test", name);
        let index = thunk.0.wrapping_sub(layout::THUNKS.0) / layout::THUNK_SIZE;
        assert_eq!(self.windows.thunk_name(index as u32), Some(name));
        let mut registers = [0; 4];
        for (index, &value) in arguments.iter().enumerate() {
            match registers.get_mut(index) {
                Some(register) => *register = value,
                None => {
                    let slot = Gva(STACK.0 + 8 + 8 * index as u64);
                    self.machine.write_u64(slot, value).unwrap();
                }
            }
        }
        let call = Call {
            registers,
            stack_pointer: STACK,
        };
        self.windows.call(&mut self.machine, index as u32, &call)
    }

    /// The breach of that rule, if Windows told of one.
    pub fn breach(&self, rule: &str) -> Option<Breach> {
        self.machine
            .events()
            .into_iter()
            .find_map(|event| match event {
                Event::Breach(breach) if breach.rule == rule => Some(breach),
                _ => None,
            })
    }

    /// Call a routine that returns.
    pub fn value(&mut self, name: &str, arguments: &[u64]) -> u64 {
        match self.call(name, arguments) {
            Outcome::Return(value) => value,
            other => panic!("{name}: {other:?}"),
        }
    }

    pub fn at_irql(&mut self, irql: u8) -> &mut Self {
        self.windows
            .executive
            .set_irql(&mut self.machine, irql)
            .unwrap();
        self
    }

    /// Zeroed memory of the test's own.
    pub fn space(&mut self, bytes: u64) -> u64 {
        let at = DATA.0 + self.next;
        self.next += bytes.next_multiple_of(16);
        assert!(self.next <= 8 * PAGE_SIZE);
        at
    }

    pub fn put(&mut self, at: u64, value: u64) {
        self.machine.write_u64(Gva(at), value).unwrap();
    }

    pub fn get(&self, at: u64) -> u64 {
        self.machine.read_u64(Gva(at)).unwrap()
    }

    /// A word of memory.
    pub fn word(&mut self, value: u64) -> u64 {
        let at = self.space(8);
        self.put(at, value);
        at
    }

    /// A UNICODE_STRING.
    pub fn unicode(&mut self, text: &str) -> u64 {
        let bytes: Vec<u8> = text
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        let source = self.space(bytes.len() as u64);
        self.machine.write(Gva(source), &bytes).unwrap();
        let string = self.space(16);
        self.value("RtlInitUnicodeString", &[string, source]);
        string
    }

    /// OBJECT_ATTRIBUTES of the driver's own key.
    pub fn key_attributes(&mut self) -> u64 {
        let path = self.windows.executive.registry().service_key();
        let name = self.unicode(&path);
        let at = self.space(0x30);
        self.put(at, 0x30);
        self.put(at + 0x10, name);
        at
    }

    /// An open key.
    pub fn key(&mut self) -> u64 {
        let (attributes, handle) = (self.key_attributes(), self.space(8));
        assert_eq!(self.value("ZwOpenKey", &[handle, 0, attributes]), 0);
        self.get(handle)
    }

    pub fn event(&mut self) -> u64 {
        let at = self.space(0x18);
        self.value("KeInitializeEvent", &[at, 0, 1]);
        at
    }

    pub fn timer(&mut self) -> u64 {
        let at = self.space(0x40);
        self.value("KeInitializeTimer", &[at]);
        at
    }

    pub fn semaphore(&mut self) -> u64 {
        let at = self.space(0x20);
        self.value("KeInitializeSemaphore", &[at, 1, 2]);
        at
    }

    pub fn mutex(&mut self) -> u64 {
        let at = self.space(0x38);
        self.value("KeInitializeMutex", &[at, 0]);
        at
    }

    pub fn fast_mutex(&mut self) -> u64 {
        let at = self.space(0x38);
        self.value("KeInitializeGuardedMutex", &[at]);
        at
    }

    pub fn remove_lock(&mut self) -> u64 {
        let at = self.space(0x20);
        self.value("IoInitializeRemoveLockEx", &[at, 1, 0, 0, 0x20]);
        at
    }

    /// A lookaside list of nonpaged pool, in blocks of 64 bytes.
    pub fn lookaside(&mut self, flags: u64) -> u64 {
        let at = self.space(0x60);
        let arguments = [at, 0, 0, 0, flags, 0x40, 0x3161_6161, 0];
        self.value("ExInitializeLookasideListEx", &arguments);
        at
    }

    /// A system thread is made, and has the CPU.
    pub fn in_thread(&mut self) -> &mut Self {
        let handle = self.space(8);
        let arguments = [handle, 0, 0, 0, 0, layout::IMAGES.0, 0];
        self.value("PsCreateSystemThread", &arguments);
        let id = self.windows.executive.threads().len() as u32 - 1;
        self.windows
            .executive
            .switch_to(&mut self.machine, id)
            .unwrap();
        self
    }

    /// A work item of dxgkrnl's device.
    pub fn work_item(&mut self) -> u64 {
        let [device, _] = self.irp();
        self.value("IoAllocateWorkItem", &[device])
    }

    /// A work item that is queued, as every worker is busy.
    pub fn queued_work_item(&mut self) -> u64 {
        let mut last = 0;
        for _ in 0..5 {
            last = self.work_item();
            self.value("IoQueueWorkItem", &[last, layout::IMAGES.0, 1, 0]);
        }
        last
    }

    /// A handle of dxgkrnl's device, and an IRP that is not sent.
    pub fn irp(&mut self) -> [u64; 2] {
        let (file, device) = (self.space(8), self.space(8));
        let name = self.unicode("\\Device\\DxgKrnl");
        self.value("IoGetDeviceObjectPointer", &[name, 0, file, device]);
        let device = self.get(device);
        let (event, block, output) = (self.event(), self.space(16), self.space(8));
        let arguments = [0x23_003f, device, 0, 0, output, 8, 1, event, block];
        let irp = self.value("IoBuildDeviceIoControlRequest", &arguments);
        assert_ne!(irp, 0);
        [device, irp]
    }

    /// Pages for an MDL.
    pub fn pages(&mut self, count: u64) -> u64 {
        let arguments = [0, u64::MAX, 0, count * PAGE_SIZE];
        self.value("MmAllocatePagesForMdl", &arguments)
    }

    /// Map an MDL to system addresses.
    pub fn map(&mut self, mdl: u64) -> Outcome {
        self.call("MmMapLockedPagesSpecifyCache", &[mdl, 0, 1, 0, 0, 16])
    }

    /// Pages for an MDL, mapped.
    pub fn mapped(&mut self) -> (u64, u64) {
        let mdl = self.pages(1);
        match self.map(mdl) {
            Outcome::Return(address) => (mdl, address),
            other => panic!("{other:?}"),
        }
    }

    /// Pages for an MDL, mapped for user mode.
    pub fn user_mapped(&mut self) -> (u64, u64) {
        let mdl = self.pages(1);
        let arguments = [mdl, 1, 1, 0, 0, 16];
        (mdl, self.value("MmMapLockedPagesSpecifyCache", &arguments))
    }

    /// Nonpaged pool, a page of it.
    pub fn pool(&mut self) -> u64 {
        self.value("ExAllocatePool2", &[0x40, PAGE_SIZE, 0x3161_6161])
    }

    /// An MDL for pool that is not locked.
    pub fn pool_mdl(&mut self) -> u64 {
        let block = self.pool();
        self.value("IoAllocateMdl", &[block, PAGE_SIZE, 0, 0, 0])
    }

    /// An MDL for pool that is locked.
    pub fn locked(&mut self) -> u64 {
        let mdl = self.pool_mdl();
        self.value("MmProbeAndLockPages", &[mdl, 0, 1]);
        mdl
    }

    /// A locked MDL of two pages, where it starts, and an MDL with room for
    /// one page.
    pub fn source_and_target(&mut self) -> (u64, u64, u64) {
        let start = self.value("ExAllocatePool2", &[0x40, 2 * PAGE_SIZE, 1]);
        let source = self.value("IoAllocateMdl", &[start, 2 * PAGE_SIZE, 0, 0, 0]);
        self.value("MmProbeAndLockPages", &[source, 0, 1]);
        let target = self.value("IoAllocateMdl", &[start, 1, 0, 0, 0]);
        (source, start, target)
    }

    /// MM_PHYSICAL_ADDRESS_LIST of one range of device memory.
    pub fn io_list(&mut self, bytes: u64) -> u64 {
        let list = self.space(16);
        self.put(list, 0xc000_0000);
        self.put(list + 8, bytes);
        list
    }

    pub fn set_flags(&mut self, mdl: u64, flags: u16) {
        self.machine
            .write(Gva(mdl + 0x0a), &flags.to_le_bytes())
            .unwrap();
    }

    /// The argument of DxgkCbAllocatePagesForMdl.
    pub fn pages_argument(&mut self, bytes: u64) -> u64 {
        let at = self.space(0x38);
        self.put(at + 8, u64::MAX);
        self.put(at + 0x18, bytes);
        at
    }

    /// The argument of DxgkCbAllocateContiguousMemory.
    pub fn contiguous_argument(&mut self, bytes: u64, boundary: u64) -> u64 {
        use crate::dxgk::spec::allocate_contiguous as field;
        let at = self.space(0x38);
        self.put(at + field::BYTES, bytes);
        self.put(at + field::HIGHEST, u64::MAX);
        self.put(at + field::BOUNDARY, boundary);
        at
    }

    /// The argument of a free of pages that dxgkrnl gave.
    pub fn dxgk_pages(&mut self) -> (u64, u64) {
        let argument = self.pages_argument(PAGE_SIZE);
        let status = self.value("DxgkCbAllocatePagesForMdl", &[ADAPTER, argument]);
        assert_eq!(status, 0);
        let handle = self.get(argument + 0x28);
        (self.word(handle), self.get(argument + 0x30))
    }

    /// The argument of a free of contiguous memory that dxgkrnl gave, and
    /// the memory.
    pub fn dxgk_contiguous(&mut self) -> (u64, u64) {
        use crate::dxgk::spec::allocate_contiguous as field;
        let argument = self.contiguous_argument(PAGE_SIZE, 0);
        let status = self.value("DxgkCbAllocateContiguousMemory", &[ADAPTER, argument]);
        assert_eq!(status, 0);
        let handle = self.get(argument + field::HANDLE);
        (self.word(handle), self.get(argument + field::MEMORY))
    }

    /// The argument of DxgkCbMapMdlToIoMmu for locked pool.
    pub fn mdl_argument(&mut self) -> u64 {
        let (at, mdl) = (self.space(16), self.locked());
        self.put(at, mdl);
        at
    }

    /// The argument of DxgkCbUnmapMdlFromIoMmu for locked pool.
    pub fn mapped_mdl(&mut self) -> u64 {
        let at = self.mdl_argument();
        assert_eq!(self.value("DxgkCbMapMdlToIoMmu", &[ADAPTER, at]), 0);
        let handle = self.get(at + 8);
        self.word(handle)
    }

    /// An adapter with 40 pages to save its frame buffer to.
    pub fn save_area(&mut self) {
        let section = dxgk::framebuffer::Section::new(40 * PAGE_SIZE);
        self.windows.dxgk.section = Some(section);
    }

    /// The argument of DxgkCbPinFrameBufferForSave.
    pub fn pin_argument(&mut self, bytes: u64) -> u64 {
        self.save_area();
        let at = self.space(0x18);
        self.put(at + 8, bytes);
        at
    }

    /// The argument of DxgkCbUnpinFrameBufferForSave.
    pub fn pinned(&mut self) -> u64 {
        let at = self.pin_argument(PAGE_SIZE);
        assert_eq!(self.value("DxgkCbPinFrameBufferForSave", &[ADAPTER, at]), 0);
        self.word(0)
    }

    /// The argument of DxgkCbMapFrameBufferPointer.
    pub fn view_argument(&mut self, bytes: u64, offset: u64) -> u64 {
        self.save_area();
        let at = self.space(0x20);
        self.put(at + 8, bytes);
        self.put(at + 0x10, offset);
        at
    }

    /// The argument of DxgkCbUnmapFrameBufferPointer.
    pub fn viewed(&mut self) -> u64 {
        let at = self.view_argument(PAGE_SIZE, 0);
        assert_eq!(self.value("DxgkCbMapFrameBufferPointer", &[ADAPTER, at]), 0);
        let (address, argument) = (self.get(at + 0x18), self.space(16));
        self.put(argument + 8, address);
        argument
    }

    /// Leave this many page frames.
    pub fn leave_frames(&mut self, count: u64) {
        while self.windows.mm.stats().free_frames > count {
            self.windows.mm.reserve_frame(&mut self.machine).unwrap();
        }
    }

    /// The device's first register, in a BAR of four pages.
    pub fn bar(&mut self) -> u64 {
        self.machine.bars[0] = (0x4000, false);
        self.windows
            .hal
            .configure_device(&mut self.machine, DEVICE, 1)
            .unwrap();
        self.windows.hal.resources(DEVICE).memory[0].address.0
    }
}
