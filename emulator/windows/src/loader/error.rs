//! Why a file is not a driver that can be loaded.

use thiserror::Error;

/// Why a file is not a driver that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// No bytes at all.
    #[error("the file is empty; give the driver's .sys file")]
    Empty,
    /// Longer than any driver.
    #[error("the file has {size} bytes, more than the {limit} that a driver may have")]
    TooLarge {
        /// Its length.
        size: u64,
        /// The most there may be.
        limit: u64,
    },
    /// Something else than a PE image.
    #[error("this is {found}, not a Windows driver; give the driver's .sys file")]
    NotPe {
        /// What it looks like.
        found: &'static str,
    },
    /// The file ends inside a structure.
    #[error(
        "the file ends inside {what}: {bytes:#x} bytes are needed at file offset {offset:#x}, the file has {size:#x}; copy it again"
    )]
    Truncated {
        /// Which structure.
        what: String,
        /// Where it starts.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// How long the file is.
        size: u64,
    },
    /// Code for another processor.
    #[error("this driver is built for {name} (machine {machine:#06x}); build it for x64 (0x8664)")]
    WrongMachine {
        /// From the file header.
        machine: u16,
        /// In words.
        name: &'static str,
    },
    /// A PE32 image.
    #[error("this is a 32-bit (PE32) image; build the driver for x64 (PE32+)")]
    ThirtyTwoBit,
    /// Not in kernel mode.
    #[error(
        "this is {kind} (subsystem {subsystem}), not a kernel-mode driver; link with /DRIVER /SUBSYSTEM:NATIVE (1)"
    )]
    WrongSubsystem {
        /// From the optional header.
        subsystem: u16,
        /// In words.
        kind: &'static str,
    },
    /// The linker reported errors, or it is an object file.
    #[error("the image is not marked executable (file header, characteristics {0:#06x}); link it")]
    NotLinked(u16),
    /// No entry point.
    #[error("the image has no entry point; link with /ENTRY:GsDriverEntry or /ENTRY:DriverEntry")]
    NoEntry,
    /// A field of a header makes no sense.
    #[error("broken {what}: {field} is {value:#x}, {expected}")]
    BadField {
        /// Which structure.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it should be.
        expected: &'static str,
    },
    /// A section that cannot be mapped.
    #[error("section {index} ({name}) at RVA {rva:#x}, {size:#x} bytes, {problem}")]
    BadSection {
        /// Its number, from 1.
        index: usize,
        /// Its name.
        name: String,
        /// Where it starts.
        rva: u32,
        /// Its size in memory.
        size: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A structure leads out of the image.
    #[error(
        "{what} at RVA {rva:#x}, {bytes:#x} bytes, does not lie in the image of {size:#x} bytes"
    )]
    OutsideImage {
        /// Which structure.
        what: String,
        /// Where it should be.
        rva: u64,
        /// How long it is.
        bytes: u64,
        /// Size of the image.
        size: u64,
    },
    /// More of something than any driver has.
    #[error("the image has more than {limit} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
    /// A name of an import or an export that is no name.
    #[error("broken import table: {what} at RVA {rva:#x} is {problem}")]
    BadName {
        /// Whose name.
        what: String,
        /// Where it is.
        rva: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A relocation that x64 does not have.
    #[error("relocation of type {kind} at RVA {rva:#x}: x64 drivers have DIR64 (10) only")]
    BadRelocation {
        /// Its type.
        kind: u8,
        /// What it relocates.
        rva: u32,
    },
    /// Cannot be moved.
    #[error(
        "the image has no relocations and cannot be moved from {preferred:#x} to {base:#x}; link with /DYNAMICBASE, without /FIXED"
    )]
    NotRelocatable {
        /// Where it wants to be.
        preferred: u64,
        /// Where it should go.
        base: u64,
    },
    /// A base that is no base.
    #[error("cannot load an image of {size:#x} bytes at {base:#x}: {problem}")]
    BadBase {
        /// The base.
        base: u64,
        /// Size of the image.
        size: u64,
        /// What is wrong.
        problem: &'static str,
    },
}
