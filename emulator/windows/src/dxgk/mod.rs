//! dxgkrnl as a display miniport sees it: registration, the adapter's life,
//! the `DxgkCb*` callbacks, and the isolation domain.

mod child;
pub mod device;
pub mod domain;
pub(crate) mod framebuffer;
mod leaks;
pub mod lifecycle;
mod mdl;
pub mod pages;
mod power;
mod requests;
pub mod spec;
mod start;
#[cfg(test)]
mod tests;

pub use domain::{DomainMode, IommuFlags};
pub use lifecycle::{DriverCall, Progress};

use crate::call::{Call, Outcome};
use crate::hal::DomainId;
use crate::layout;
use crate::platform::{Platform, PlatformError};
use crate::rules::dxgk as rule;
use crate::status;
use crate::{Windows, executive};
use journal::event::{AllocationId, PageRun};
use memory::{Gva, Pfn, RequesterId};
use std::collections::{BTreeMap, BTreeSet};

/// Interrupt request level of the device's interrupt: above every DPC.
/// Windows derives it from the vector; any device level serves.
pub const DEVICE_IRQL: u8 = 9;

/// A callback: it may reach every room.
pub(crate) type Callback = fn(&mut Windows, &mut dyn Platform, &Call) -> Outcome;

/// The callbacks that exist, by the name of their slot.
pub(crate) const CALLBACKS: &[(&str, Callback)] = &[
    ("DxgkCbGetDeviceInformation", device::get_device_information),
    ("DxgkCbIndicateChildStatus", child::indicate_status),
    ("DxgkCbMapMemory", device::map_memory),
    ("DxgkCbQueueDpc", device::queue_dpc),
    ("DxgkCbReadDeviceSpace", device::read_device_space),
    ("DxgkCbSynchronizeExecution", device::synchronize_execution),
    ("DxgkCbUnmapMemory", device::unmap_memory),
    ("DxgkCbWriteDeviceSpace", device::write_device_space),
    ("DxgkCbNotifyInterrupt", succeed),
    ("DxgkCbNotifyDpc", succeed),
    ("DxgkCbLogEtwEvent", succeed),
    ("DxgkCbSetPowerComponentActive", succeed),
    ("DxgkCbSetPowerComponentIdle", succeed),
    (
        "DxgkCbAcquirePostDisplayOwnership",
        device::acquire_post_display,
    ),
    (
        "DxgkCbAcquirePostDisplayOwnership2",
        device::acquire_post_display,
    ),
    ("DxgkCbAllocateContiguousMemory", pages::allocate_contiguous),
    ("DxgkCbFreeContiguousMemory", pages::free_contiguous),
    ("DxgkCbAllocatePagesForMdl", pages::allocate_pages_for_mdl),
    ("DxgkCbFreePagesFromMdl", pages::free_pages_from_mdl),
    ("DxgkCbPinFrameBufferForSave", framebuffer::pin),
    ("DxgkCbUnpinFrameBufferForSave", framebuffer::unpin),
    ("DxgkCbMapFrameBufferPointer", framebuffer::map),
    ("DxgkCbUnmapFrameBufferPointer", framebuffer::unmap),
    ("DxgkCbMapMdlToIoMmu", mdl::map),
    ("DxgkCbUnmapMdlFromIoMmu", mdl::unmap),
];

/// The routine that the display port library calls to register a full
/// miniport; dxgkrnl hands its address out by an internal IOCTL.
pub const REGISTER: &str = "DxgkInitialize";
/// The same for a display-only driver.
pub const REGISTER_DISPLAY_ONLY: &str = "DxgkInitializeDisplayOnlyDriver";

/// What a driver registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Miniport {
    /// Interface version it was built for.
    pub version: u32,
    /// Has it the display-only table?
    pub display_only: bool,
    pub add_device: u64,
    pub start_device: u64,
    pub stop_device: u64,
    pub remove_device: u64,
    pub interrupt_routine: u64,
    pub dpc_routine: u64,
    pub unload: u64,
    pub query_adapter_info: u64,
    pub escape: u64,
    pub set_power_state: u64,
    pub begin_exclusive_access: u64,
    pub end_exclusive_access: u64,
}

/// Memory that dxgkrnl tracks under a handle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tracked {
    /// The allocation; of a mapped MDL, that of its first page, if it has one.
    pub id: Option<AllocationId>,
    pub frames: Vec<Pfn>,
    /// May the device write?
    pub write: bool,
    pub object: TrackedObject,
}

/// What the driver was given with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TrackedObject {
    /// An MDL, which dxgkrnl owns.
    Mdl(Gva),
    /// A mapped contiguous block.
    Contiguous(Gva),
    /// Nothing: it is an MDL of the driver's own, mapped for the device.
    Mapped(Gva),
}

/// A handle that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Freed {
    /// What it stood for.
    pub id: Option<AllocationId>,
    /// By the driver? Else dxgkrnl took it back when the device was stopped.
    pub by_driver: bool,
}

/// Everything dxgkrnl remembers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The PCI function that the adapter is.
    pub(crate) device: RequesterId,
    pub(crate) mode: DomainMode,
    pub(crate) miniport: Option<Miniport>,
    /// MiniportDeviceContext, from AddDevice.
    pub(crate) context: u64,
    pub(crate) tracked: BTreeMap<u64, Tracked>,
    pub(crate) freed: BTreeMap<u64, Freed>,
    /// Handles given out so far: none is used twice.
    pub(crate) handles: u64,
    /// Addresses of device memory that DxgkCbMapMemory gave.
    pub(crate) mappings: BTreeSet<Gva>,
    /// When and how the adapter is isolated.
    pub(crate) flags: IommuFlags,
    /// The isolation domain, once created.
    pub(crate) domain: Option<DomainId>,
    /// Is the device attached to it?
    pub(crate) attached: bool,
    /// Does the domain map all of RAM? Then it is left as it is.
    pub(crate) maps_all: bool,
    /// RAM that is the firmware's: not Windows' to give, and the only RAM
    /// that a driver may call reserved by its hardware.
    pub(crate) firmware: Vec<PageRun>,
    /// Ranges that the driver reported as reserved by its hardware.
    pub(crate) reserved: Vec<PageRun>,
    /// And what they are as allocations.
    pub(crate) reserved_ids: Vec<AllocationId>,
    /// What the frame buffer is saved to; none if the driver asked for none.
    pub(crate) section: Option<framebuffer::Section>,
    /// Does DxgkCbPinFrameBufferForSave find the memory?
    pub(crate) pin_succeeds: bool,
    pub(crate) power: power::Power,
    pub(crate) dpc_queued: bool,
    pub(crate) stage: lifecycle::Stage,
    /// The routine that refused to start, and its status.
    pub(crate) failure: Option<(String, u32)>,
    /// Why the device could not be switched to its domain, until
    /// DxgkDdiEndExclusiveAccess has returned.
    pub(crate) not_switched: Option<String>,
    pub(crate) secure_mode_supported: bool,
    /// Is the driver's image gone?
    pub(crate) unloaded: bool,
}

impl State {
    /// An adapter that is not started, for the device at `device`.
    #[must_use]
    pub fn new(device: RequesterId, mode: DomainMode) -> Self {
        Self {
            device,
            mode,
            miniport: None,
            context: 0,
            tracked: BTreeMap::new(),
            freed: BTreeMap::new(),
            handles: 0,
            mappings: BTreeSet::new(),
            flags: mode.flags(),
            domain: None,
            attached: false,
            maps_all: false,
            firmware: Vec::new(),
            reserved: Vec::new(),
            reserved_ids: Vec::new(),
            section: None,
            pin_succeeds: true,
            power: power::Power::On,
            dpc_queued: false,
            stage: lifecycle::Stage::Load,
            failure: None,
            not_switched: None,
            secure_mode_supported: false,
            unloaded: false,
        }
    }

    /// With these bits of the registry value IOMMUFlags, besides those that
    /// the mode stands for.
    #[must_use]
    pub fn with_flags(mut self, flags: IommuFlags) -> Self {
        let own = match self.mode {
            // A secure VM isolates whatever the enable bits say.
            DomainMode::Isolation => IommuFlags(flags.0 & !IommuFlags::FORCE),
            DomainMode::Passthrough => IommuFlags(flags.0 & !IommuFlags::ENABLE_ATTACH),
            DomainMode::Forced => flags,
        };
        self.flags = self.mode.flags().with(own);
        self
    }

    /// With RAM that is the firmware's: the only RAM that a driver may report
    /// as reserved by its hardware.
    #[must_use]
    pub fn with_firmware(mut self, firmware: Vec<PageRun>) -> Self {
        self.firmware = firmware;
        self
    }

    /// DxgkCbPinFrameBufferForSave succeeds, or never finds the memory.
    #[must_use]
    pub fn with_framebuffer_pin(mut self, succeeds: bool) -> Self {
        self.pin_succeeds = succeeds;
        self
    }

    /// Did the driver register as a display miniport?
    #[must_use]
    pub fn registered(&self) -> bool {
        self.miniport.is_some()
    }

    /// Was the driver unloaded? One without an unload routine never is.
    #[must_use]
    pub fn is_unloaded(&self) -> bool {
        self.unloaded
    }

    /// The interface version that the driver registered with.
    #[must_use]
    pub fn interface_version(&self) -> Option<u32> {
        self.miniport.as_ref().map(|m| m.version)
    }

    /// Did it register as a display-only driver?
    #[must_use]
    pub fn is_display_only(&self) -> bool {
        self.miniport.as_ref().is_some_and(|m| m.display_only)
    }

    /// Did it report IoMmuSecureModeSupported, once asked?
    #[must_use]
    pub fn reports_secure_mode(&self) -> bool {
        self.secure_mode_supported
    }

    /// Is the device behind the isolation domain now?
    #[must_use]
    pub fn isolated(&self) -> bool {
        self.attached
    }

    /// Memory given out by the callbacks and not taken back.
    #[must_use]
    pub fn live_allocations(&self) -> usize {
        self.tracked.len()
    }

    /// The routine that refused to start, and its status.
    #[must_use]
    pub fn failure(&self) -> Option<(&str, u32)> {
        self.failure.as_ref().map(|(r, s)| (r.as_str(), *s))
    }
}

/// A callback whose success is all that a driver sees of it here.
fn succeed(_: &mut Windows, _: &mut dyn Platform, _: &Call) -> Outcome {
    Outcome::Return(u64::from(status::SUCCESS))
}

/// Every callback but those of the interrupt path carries the device handle
/// first; another one is refused.
pub(crate) fn is_our_handle(handle: u64) -> bool {
    handle == DEVICE_HANDLE
}

/// `DXGKRNL_INTERFACE::DeviceHandle`: an opaque value that is no address of
/// anything mapped.
pub(crate) const DEVICE_HANDLE: u64 = 0xFFFF_C00F_0000_1000;

/// `DxgkInitialize(DriverObject, RegistryPath, InitializationData)`, as the
/// display port library calls it.
pub(crate) fn register(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    register_table(windows, p, call, false)
}

/// `DxgkInitializeDisplayOnlyDriver`, likewise.
pub(crate) fn register_display_only(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    register_table(windows, p, call, true)
}

fn register_table(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
    display_only: bool,
) -> Outcome {
    match read_table(p, Gva(call.registers[2]), display_only) {
        Ok(Some(miniport)) => {
            windows.dxgk.miniport = Some(miniport);
            Outcome::Return(u64::from(status::SUCCESS))
        }
        Ok(None) => rule::TABLE.refusal("a mandatory routine is missing"),
        Err(e) => e.into(),
    }
}

fn read_table(
    p: &dyn Platform,
    table: Gva,
    display_only: bool,
) -> Result<Option<Miniport>, PlatformError> {
    use spec::initialization as slot;
    let pointer = |offset: u64| {
        let at = table
            .checked_add(offset)
            .ok_or(PlatformError::NotMapped(table))?;
        p.read_u64(at)
    };
    let version = p.read_u32(table)?;
    let isolating = !display_only && version >= spec::VERSION_WDDM_2_4;
    let exclusive = |offset| {
        if isolating { pointer(offset) } else { Ok(0) }
    };
    let miniport = Miniport {
        version,
        display_only,
        add_device: pointer(slot::ADD_DEVICE)?,
        start_device: pointer(slot::START_DEVICE)?,
        stop_device: pointer(slot::STOP_DEVICE)?,
        remove_device: pointer(slot::REMOVE_DEVICE)?,
        interrupt_routine: pointer(slot::INTERRUPT_ROUTINE)?,
        dpc_routine: pointer(slot::DPC_ROUTINE)?,
        unload: pointer(slot::UNLOAD)?,
        query_adapter_info: pointer(slot::QUERY_ADAPTER_INFO)?,
        set_power_state: pointer(slot::SET_POWER_STATE)?,
        escape: pointer(if display_only {
            slot::DISPLAY_ONLY_ESCAPE
        } else {
            slot::ESCAPE
        })?,
        begin_exclusive_access: exclusive(slot::BEGIN_EXCLUSIVE_ACCESS)?,
        end_exclusive_access: exclusive(slot::END_EXCLUSIVE_ACCESS)?,
    };
    // The documents make these mandatory; without them there is no adapter.
    let whole = [
        miniport.add_device,
        miniport.start_device,
        miniport.stop_device,
        miniport.remove_device,
        miniport.query_adapter_info,
    ]
    .iter()
    .all(|&routine| routine != 0);
    Ok(whole.then_some(miniport))
}

/// Write `DXGKRNL_INTERFACE`; each callback that does not exist points at a
/// page of its own that is never mapped, so that its use has a name.
pub(crate) fn write_interface(
    windows: &mut Windows,
    p: &mut dyn Platform,
    at: Gva,
) -> Result<(), PlatformError> {
    let mut bytes = Vec::with_capacity(spec::INTERFACE_SIZE as usize);
    bytes.extend_from_slice(&(spec::INTERFACE_SIZE as u32).to_le_bytes());
    bytes.extend_from_slice(&spec::VERSION_WDDM_2_4.to_le_bytes());
    bytes.extend_from_slice(&DEVICE_HANDLE.to_le_bytes());
    for name in spec::INTERFACE {
        let target = windows.resolve_routine("dxgkrnl.sys", name);
        bytes.extend_from_slice(&target.0.to_le_bytes());
    }
    p.write(at, &bytes)
}

/// A small allocator inside [`layout::DXGK_DATA`]: fixed places, because one
/// adapter needs one of each.
pub(crate) mod place {
    use super::layout::{DXGK_DATA, DXGK_DATA_SIZE};
    use memory::Gva;

    const fn at(offset: u64) -> Gva {
        Gva(DXGK_DATA.0 + offset)
    }

    /// DRIVER_OBJECT.
    pub const DRIVER_OBJECT: Gva = at(0);
    /// UNICODE_STRING of the service's registry path; text at +0x10.
    pub const SERVICE_PATH: Gva = at(0x200);
    /// DEVICE_OBJECT of the PCI function.
    pub const PHYSICAL_DEVICE: Gva = at(0x600);
    /// DXGK_START_INFO.
    pub const START_INFO: Gva = at(0x800);
    /// Two ULONGs that StartDevice fills.
    pub const COUNTS: Gva = at(0x840);
    /// MiniportDeviceContext that AddDevice fills.
    pub const CONTEXT: Gva = at(0x850);
    /// DXGKARG_QUERYADAPTERINFO.
    pub const QUERY: Gva = at(0x880);
    /// DXGKARG_ESCAPE.
    pub const ESCAPE: Gva = at(0x900);
    /// Argument of the exclusive-access routines.
    pub const EXCLUSIVE: Gva = at(0x980);
    /// Input of QueryAdapterInfo: a physical adapter's index.
    pub const INPUT: Gva = at(0x990);
    /// DXGKRNL_INTERFACE.
    pub const INTERFACE: Gva = at(0xA00);
    /// Output of QueryAdapterInfo.
    pub const OUTPUT: Gva = at(0x1000);
    /// Bytes for it.
    pub const OUTPUT_SIZE: u32 = 0x1000;
    /// Private data of an Escape ends where this page does, and nothing is
    /// behind it: a driver that goes on past its end is noticed.
    pub const PRIVATE: Gva = at(DXGK_DATA_SIZE - 0x1000);
    /// Bytes for it.
    pub const PRIVATE_SIZE: usize = 0x1000;
    /// CM_RESOURCE_LIST.
    pub const RESOURCES: Gva = at(0x3000);
    /// Text of the device's registry path.
    pub const DEVICE_PATH: Gva = at(0x3800);
}

/// The IRQL rule of a memory callback, as a bug check.
pub(crate) fn irql_stop(executive: &executive::State, name: &str) -> Option<crate::Stop> {
    let breach = rule::CALLBACK_IRQL.breach(name, executive.irql(), &[])?;
    Some(breach.or_return(status::INVALID_PARAMETER))
}

/// The member at `offset` of an argument of the driver's.
pub(crate) fn field(base: Gva, offset: u64) -> Result<Gva, PlatformError> {
    base.checked_add(offset)
        .ok_or(PlatformError::NotMapped(base))
}

/// A callback's end, whichever way it came to it.
pub(crate) fn finish(result: Result<Outcome, PlatformError>) -> Outcome {
    result.unwrap_or_else(Outcome::from)
}

/// The HAL could not do it: Windows' own bug check for that.
pub(crate) fn hal_stop(what: &str, error: &crate::hal::HalError) -> Outcome {
    let what = format!("HAL_IOMMU_INTERNAL_ERROR: {what}: {error}");
    Outcome::Stop(rule::UNMAP_FAILED.stop(&[], what))
}
