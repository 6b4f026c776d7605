//! Planted bugs, for showing what a tool says of them. Compiled only with
//! the feature `defects`; the registry value `Defect` chooses one.
//!
//! Each is a mistake that real drivers make, in the place where they make
//! it: the rest of the driver asks here, in a line, whether to go wrong. The
//! name with `-fixed` runs the same code without the mistake.

pub mod buffers;
pub mod cpu;
pub mod escape;
pub mod irql;
pub mod life;
pub mod pages;
pub mod races;
mod raw;
pub mod ring;

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::nt::{Result, log};
use crate::registry::Text;
use crate::spec::nt::STATUS_INVALID_PARAMETER;

/// Declares the defects with the names that the registry has for them.
macro_rules! defects {
    ($($(#[$attribute:meta])* $defect:ident = $name:literal,)+) => {
        /// Which bug the driver shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Defect {
            $(#[doc = concat!("`", $name, "`: ")] $(#[$attribute])* $defect,)+
        }

        /// Each with its terminator.
        const NAMES: &[(&str, Defect)] = &[$((concat!($name, "\0"), Defect::$defect),)+];
    };
}

defects! {
    /// pages go back first, and only then the driver waits and detaches.
    FreeBeforeDetach = "free-before-detach",
    /// pages go back after a detach that was queued, not acknowledged.
    FreeInFlight = "free-in-flight",
    /// the table keeps a freed resource, and StopDevice frees it again.
    DoubleFree = "double-free",
    /// dxgkrnl's MDL is freed as if the driver had allocated it.
    FreeForeignMdl = "free-foreign-mdl",
    /// pages are freed through a copy of their MDL.
    FreeCopiedPfns = "free-copied-pfns",
    /// an MDL is freed while it is mapped to the IOMMU.
    MdlDiesMapped = "mdl-dies-mapped",
    /// pages are freed, their MDL is not.
    NoExFreePool = "no-exfreepool",
    /// the MDL is freed before the pages it describes.
    ExFreePoolFirst = "exfreepool-first",
    /// an allocation that came short is used to the length asked for.
    PartialAsWhole = "partial-as-whole",
    /// the device gets physical addresses of pool.
    PhysicalAddress = "physical-address",
    /// pages are allocated under a spin lock.
    IrqlAllocate = "irql-allocate",
    /// pages are freed under a spin lock.
    IrqlFree = "irql-free",
    /// contiguous memory is allocated under a spin lock.
    IrqlContiguous = "irql-contiguous",
    /// an MDL is mapped to the IOMMU under a spin lock.
    IrqlMap = "irql-map",
    /// the interrupt routine allocates pages.
    IrqlMm = "irql-mm",
    /// the interrupt routine allocates pool.
    IrqlPool = "irql-pool",
    /// the driver waits under a spin lock.
    IrqlWait = "irql-wait",
    /// a command is sent after the wait for idleness.
    DmaInExclusiveAccess = "dma-in-exclusive-access",
    /// StopDevice keeps the command buffer.
    LeakHandle = "leak-handle",
    /// a growing resource gets new rings, and the device is not told.
    RingFreedOnResize = "ring-freed-on-resize",
    /// a buffer that the device writes is locked for reading.
    ReadOnlyMapping = "read-only-mapping",
    /// the used ring is where interrupts are sent.
    RingInInterruptRange = "ring-in-interrupt-range",
    /// pages are freed while a program has them mapped.
    FreeUserMapped = "free-user-mapped",
    /// a cached resource gets new pages, and the device is not told.
    ReuseOldBacking = "reuse-old-backing",
    /// a pool block is wiped after it was freed.
    CpuFreedPool = "cpu-freed-pool",
    /// a picture is wiped after it was unmapped.
    CpuUnmappedAddress = "cpu-unmapped-address",
    /// a wait takes the late signal of an earlier frame for its own.
    StaleSignal = "stale-signal",
    /// a resize gives back what the DPC of a shown frame still writes to.
    ResizeRacesDpc = "resize-races-dpc",
    /// StopDevice resets with a command outstanding, and frees what its DPC
    /// looks at.
    ResetOutstanding = "reset-outstanding",
    /// the flag by which exclusive access waits is set before the command.
    ExclusiveInFlight = "exclusive-in-flight",
    /// a worker and StopDevice free one handle.
    FreedByTwoThreads = "freed-by-two-threads",
    /// a creation that fails half-way forgets its pages.
    ErrorPathLeak = "error-path-leak",
    /// a creation that fails half-way frees its pages twice.
    ErrorPathDoubleFree = "error-path-double-free",
    /// a free that the device does not answer gives the pages back twice.
    TimeoutDoubleFree = "timeout-double-free",
    /// an Escape's command is read, and answered, whatever its size.
    EscapeSizeUnchecked = "escape-size-unchecked",
}

/// What the suffix of a healthy twin is.
const FIXED: &[u8] = b"-fixed";
/// No defect is chosen.
const NONE: u32 = u32::MAX;

static CHOSEN: AtomicU32 = AtomicU32::new(NONE);
static IS_FIXED: AtomicBool = AtomicBool::new(false);

/// Is `defect`, or its healthy twin, what the registry names?
pub fn is_chosen(defect: Defect) -> bool {
    CHOSEN.load(Ordering::Relaxed) == defect as u32
}

/// Is `defect` to be shown?
pub fn shows(defect: Defect) -> bool {
    is_chosen(defect) && !IS_FIXED.load(Ordering::Relaxed)
}

/// Is the healthy twin of `defect` to be run?
pub fn is_fixed(defect: Defect) -> bool {
    is_chosen(defect) && IS_FIXED.load(Ordering::Relaxed)
}

/// Makes the choice that the registry names; PASSIVE_LEVEL. A name that is
/// none stops the driver from starting: a slip must not look like a clean
/// run.
pub fn choose(value: Option<Text>) -> Result<()> {
    CHOSEN.store(NONE, Ordering::Relaxed);
    let value = value.as_ref().map_or(&b""[..], Text::as_bytes);
    if matches!(value, b"" | b"none") {
        return Ok(());
    }
    let (name, fixed) = match value.strip_suffix(FIXED) {
        Some(name) => (name, true),
        None => (value, false),
    };
    let known = NAMES
        .iter()
        .find(|(known, _)| known.as_bytes().strip_suffix(b"\0") == Some(name));
    let Some(&(name, defect)) = known else {
        log!("the registry value Defect names no defect");
        return Err(STATUS_INVALID_PARAMETER);
    };
    raw::find()?;
    IS_FIXED.store(fixed, Ordering::Relaxed);
    CHOSEN.store(defect as u32, Ordering::Relaxed);
    if fixed {
        log!("without the planted defect %s", name.as_ptr());
    } else {
        log!("planted defect: %s", name.as_ptr());
    }
    Ok(())
}
