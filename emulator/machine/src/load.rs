//! Putting the machine together: memory, the driver's image, Windows' own
//! structures, the IOMMU's first programming.

use crate::board::{Board, BoardState};
use crate::error::MachineError;
use crate::options::{DEVICE, Options};
use crate::run::threads::Thread;
use crate::run::{Machine, RunState};
use crate::vm::patch::{self, PatchTable};
use crate::vm::{self, AddressSpace, FrameRange, Vm, helpers, thunk};
use crate::workload::Workload;
use gpu::{GpuConfig, VirtioGpu};
use journal::Journal;
use journal::event::{self, Event, PageRun};
use memory::{GuestMemory, Gva, PAGE_SIZE, Pfn};
use scenario::Scenario;
use std::ops::Range;
use std::sync::Arc;
use symbols::Unwinder;
use windows::loader::{Image, LoadedImage, Symbol};
use windows::{Platform, Protection, Windows, dxgk, executive, hal, layout, mm};

/// Frames below are left alone: firmware's on a real machine, and a null
/// physical address stays recognisable.
const FIRST_FRAME: u64 = 0x100;
/// Frames for page tables: 8 MiB map 4 GiB of scattered pages.
const TABLE_FRAMES: u64 = 0x800;
/// Frames for threads' stacks and whatever else is mapped later.
const SPARE_FRAMES: u64 = 0x400;

/// Messages that the device is given: one for its configuration, one for its
/// queues.
const MESSAGES: u32 = 2;

/// Hands out the machine's own frames, upwards; nobody gives one back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BootFrames {
    next: u64,
    end: u64,
}

impl BootFrames {
    fn take(&mut self) -> Option<Pfn> {
        (self.next < self.end).then(|| {
            self.next += 1;
            Pfn(self.next - 1)
        })
    }
}

/// Where the functions of a driver lie in its machine, by its `.pdata`.
///
/// # Errors
/// [`MachineError::Load`]: the file is bad.
pub fn functions(driver: &[u8]) -> Result<Vec<Range<u64>>, MachineError> {
    let image = Image::parse(driver)?.load("driver", layout::IMAGES)?;
    let base = image.base.0;
    let ranges = image.functions.iter();
    Ok(ranges
        .map(|&(start, end)| base + u64::from(start)..base + u64::from(end))
        .collect())
}

impl Machine {
    /// A machine with the driver loaded and nothing called yet. `name` is
    /// the driver's file name; its events go to `journal`.
    ///
    /// # Errors
    /// [`MachineError`]: the driver file is bad, or the host cannot.
    pub fn new(
        driver: &[u8],
        name: &str,
        options: &Options,
        journal: Journal,
    ) -> Result<Self, MachineError> {
        let image = Image::parse(driver)?;
        let memory = Arc::new(GuestMemory::new(options.memory)?);
        let scenario = Scenario::new(options.plan.clone(), journal);
        scenario.journal().emit(Event::Begin(options.begin(name)));

        let image_frames = image.size() / PAGE_SIZE;
        let first_boot = FIRST_FRAME + TABLE_FRAMES;
        let system_pages = (layout::THUNKS_SIZE
            + layout::SYSTEM_DATA_SIZE
            + layout::DXGK_DATA_SIZE
            + layout::STACK_SIZE)
            / PAGE_SIZE
            + 8;
        let boot_end = first_boot + image_frames + system_pages + SPARE_FRAMES;
        let end = memory.end().0;
        // What is left must hold a useful amount of the driver's own memory.
        if boot_end + 0x400 > end {
            return Err(MachineError::TooLittleMemory(options.memory));
        }
        let space = AddressSpace::new(
            memory.clone(),
            FrameRange {
                first: Pfn(FIRST_FRAME),
                count: TABLE_FRAMES,
            },
        )
        .map_err(vm::VmError::from)?;
        let vm = Vm::new(&space)?;
        let free = free_runs(&memory, boot_end);
        let helper_image = helpers::image().map_err(|e| MachineError::Fatal(e.to_string()))?;
        let windows = Windows::new(
            executive::State::new(service(name), &options.settings),
            mm::State::new(&mm::Config {
                frames: free,
                quarantine: options.quarantine,
            }),
            hal::State::default(),
            dxgk::State::new(DEVICE, options.domain)
                .with_flags(options.iommu_flags)
                .with_framebuffer_pin(options.framebuffer_pin)
                .with_firmware(vec![PageRun {
                    first: Pfn(0),
                    count: FIRST_FRAME,
                }]),
            helper_image
                .symbols
                .iter()
                .map(|(name, offset)| ((*name).to_owned(), u64::from(*offset))),
        );
        let mut machine = Self {
            board: Board {
                memory,
                scenario,
                unit: iommu::Unit::new(),
                gpu: VirtioGpu::new(&GpuConfig {
                    device: DEVICE,
                    displays: match options.plan.displays.as_slice() {
                        [] => options.displays.clone(),
                        displays => displays.to_vec(),
                    },
                    vendor: options.vendor.clone(),
                    ..GpuConfig::default()
                }),
                vendor: options
                    .vendor
                    .as_ref()
                    .map(|region| (region.bar, Vec::new())),
                space,
                vm,
                unwinder: Unwinder::new(),
                state: BoardState::default(),
                tracker: Default::default(),
            },
            windows,
            state: RunState {
                threads: vec![Thread::new(layout::stack_top(0))],
                current: 0,
                interrupts: Vec::new(),
                late: Vec::new(),
                workload: Workload::new(options.plan.workload.clone(), options.plan.seed),
                result: 0,
                traps: 0,
                ended: None,
                held: Default::default(),
                spin: Default::default(),
                boot: BootFrames {
                    next: first_boot,
                    end: boot_end,
                },
            },
            keep_going: options.keep_going,
            choosing: false,
            patches: PatchTable::default(),
        };
        machine.lay_out(&helper_image.code)?;
        machine.load(image, driver, name)?;
        machine.start_windows()?;
        machine.board.scenario.journal().flush()?;
        Ok(machine)
    }

    pub(crate) fn boot_frame(&mut self) -> Result<Pfn, MachineError> {
        let size = self.board.memory.size();
        self.state
            .boot
            .take()
            .ok_or(MachineError::TooLittleMemory(size))
    }

    /// Map `bytes`, and zeroes up to `size`, from fresh frames.
    fn place(
        &mut self,
        at: Gva,
        size: u64,
        bytes: &[u8],
        protection: Protection,
    ) -> Result<(), MachineError> {
        for page in 0..size.div_ceil(PAGE_SIZE) {
            let frame = self.boot_frame()?;
            let address = Gva(at.0 + page * PAGE_SIZE);
            self.board
                .map(address, frame, protection)
                .map_err(MachineError::Platform)?;
            let start = ((page * PAGE_SIZE) as usize).min(bytes.len());
            let end = (start + PAGE_SIZE as usize).min(bytes.len());
            self.board.memory.write(frame.base(), &bytes[start..end])?;
        }
        Ok(())
    }

    /// Everything of Windows' that is there before a driver.
    fn lay_out(&mut self, helpers: &[u8]) -> Result<(), MachineError> {
        let page = PAGE_SIZE;
        let execute = Protection::EXECUTE;
        let write = Protection::WRITE;
        self.place(layout::RETURN, page, &thunk::routine_return(), execute)?;
        self.place(layout::THUNKS, layout::THUNKS_SIZE, &[], execute)?;
        self.place(layout::HELPERS, page, helpers, execute)?;
        self.place(layout::CELLS, page, &Windows::cells(), Protection::READ)?;
        self.place(layout::SHARED_DATA, page, &[], Protection::READ)?;
        self.place(layout::SYSTEM_DATA, layout::SYSTEM_DATA_SIZE, &[], write)?;
        self.place(layout::DXGK_DATA, layout::DXGK_DATA_SIZE, &[], write)
    }

    /// Load the driver: bind its imports, patch what does not trap.
    fn load(&mut self, image: Image, file: &[u8], name: &str) -> Result<(), MachineError> {
        let mut image = image.load(name, layout::IMAGES)?;
        let windows = &mut self.windows;
        image.bind(|import| {
            let symbol = match &import.symbol {
                Symbol::Name(name) => name.clone(),
                Symbol::Ordinal(_) => import.symbol.to_string(),
            };
            windows.resolve_routine(&import.dll, &symbol).0
        });
        let names = image.imports.iter().map(|i| i.symbol.to_string());
        windows.set_imports(names.collect());
        let helper = |name| windows.resolve_routine("ntoskrnl.exe", name).0;
        let (check, dispatch) = {
            let mut helper = helper;
            (
                helper("_guard_check_icall"),
                helper("_guard_dispatch_icall"),
            )
        };
        image.set_guard(check, dispatch);
        image.set_cookie(self.board.scenario.random());
        // Unwinding reads the image as it was before any patch.
        self.board
            .unwinder
            .add_module(name, image.base.0, &image.bytes)
            .unwrap_or_else(|e| log::warn!("{name}: stacks cannot be walked: {e}"));
        self.tell_module(&image, file, name);
        for (rva, protection) in image.pages().collect::<Vec<_>>() {
            let bytes = image.page(rva).unwrap_or_default().to_vec();
            let at = Gva(image.base.0 + u64::from(rva));
            self.place(at, PAGE_SIZE, &bytes, protection)?;
        }
        self.patch(&image)?;
        self.windows
            .set_image(image.base, image.size() as u32, image.entry);
        Ok(())
    }

    fn tell_module(&self, image: &LoadedImage, file: &[u8], name: &str) {
        let pdb = symbols::pdb_reference(file).map(|id| event::Pdb {
            name: id.name,
            guid: id.guid,
            age: id.age,
        });
        self.board
            .scenario
            .journal()
            .emit(Event::Module(event::Module {
                name: name.to_owned(),
                base: image.base.0,
                size: image.size() as u32,
                time_stamp: image.time_stamp,
                pdb,
            }));
    }

    /// Put a trapping byte over every instruction that shows the processor's
    /// state without trapping.
    fn patch(&mut self, image: &LoadedImage) -> Result<(), MachineError> {
        let functions: Vec<_> = image.functions.iter().map(|&(a, b)| a..b).collect();
        let mut entries: Vec<u32> = image.exports.iter().map(|e| e.rva).collect();
        entries.push((image.entry.0 - image.base.0) as u32);
        for (start, end) in image.code_ranges() {
            let range = start as usize..(end as usize).min(image.bytes.len());
            let Some(code) = image.bytes.get(range) else {
                continue;
            };
            let found = patch::scan(code, start, &functions, &entries);
            for gap in &found.undecoded {
                log::info!(
                    "{}+{:#x}: {} bytes of an executable section are not decoded; an \
                     instruction there that reads the flags or the time would not be seen",
                    image.name,
                    gap.rva,
                    gap.length
                );
            }
            self.patches
                .install(&self.board.space, image.base, &found.sites)
                .map_err(vm::VmError::from)?;
        }
        Ok(())
    }

    fn start_windows(&mut self) -> Result<(), MachineError> {
        let Self { board, windows, .. } = self;
        windows
            .executive
            .init(
                board,
                executive::Region {
                    base: layout::SYSTEM_DATA,
                    size: layout::SYSTEM_DATA_SIZE,
                },
            )
            .map_err(MachineError::Platform)?;
        board.vm.set_gs_base(windows.executive.kpcr().0)?;
        // Both routines by which a display port library registers.
        let full = windows.resolve_routine("dxgkrnl.sys", dxgk::REGISTER);
        let display_only = windows.resolve_routine("dxgkrnl.sys", dxgk::REGISTER_DISPLAY_ONLY);
        windows.executive.set_registration(full, display_only);
        windows.hal.init(board, &mut windows.mm, &[DEVICE])?;
        windows.hal.configure_device(board, DEVICE, MESSAGES)?;
        self.map_stack(layout::stack_top(0))?;
        let limit = Gva(layout::stack_top(0).0 - layout::STACK_SIZE);
        self.windows
            .executive
            .set_stack(&mut self.board, 0, layout::stack_top(0), limit)
            .map_err(MachineError::Platform)?;
        self.write_new_thunks()?;
        // Every read of the time page is a trap: time passes only there, at
        // other traps, and while the driver waits.
        self.board
            .space
            .trap_accesses(layout::SHARED_DATA)
            .map_err(vm::VmError::from)?;
        Ok(())
    }
}

/// Name of the driver's service: its file name without `.sys`.
fn service(name: &str) -> &str {
    let stem = name.len().saturating_sub(4);
    match name.get(stem..) {
        Some(end) if end.eq_ignore_ascii_case(".sys") => &name[..stem],
        _ => name,
    }
}

/// All RAM from frame `first` on.
fn free_runs(memory: &GuestMemory, first: u64) -> Vec<PageRun> {
    memory
        .slots()
        .iter()
        .filter_map(|slot| {
            let start = slot.base.page().max(first);
            let end = (slot.base.0 + slot.size) / PAGE_SIZE;
            (start < end).then(|| PageRun {
                first: Pfn(start),
                count: end - start,
            })
        })
        .collect()
}
