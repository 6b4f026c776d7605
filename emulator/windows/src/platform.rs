//! The machine as Windows sees it: memory, page tables, buses, a stack to
//! walk.

use journal::event::StackId;
use memory::{Gpa, GuestMemory, Gva, PAGE_SIZE, Pfn, RequesterId};
use scenario::Scenario;
use thiserror::Error;

/// What the driver's code may do with a page. Reading is always allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Protection {
    /// May it write?
    pub write: bool,
    /// May it execute?
    pub execute: bool,
}

impl Protection {
    /// Data that only is read.
    pub const READ: Self = Self {
        write: false,
        execute: false,
    };
    /// Data.
    pub const WRITE: Self = Self {
        write: true,
        execute: false,
    };
    /// Code.
    pub const EXECUTE: Self = Self {
        write: false,
        execute: true,
    };
}

/// Why the machine cannot do it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlatformError {
    /// Nothing is mapped there.
    #[error("address {0} is not mapped")]
    NotMapped(Gva),
    /// No room for more page tables, or no such memory.
    #[error("cannot map {address}: {why}")]
    CannotMap {
        /// Where.
        address: Gva,
        /// Why not.
        why: String,
    },
}

/// The machine that Windows runs on. Object-safe, so that tests can give a
/// small one.
pub trait Platform {
    /// Guest RAM.
    fn memory(&self) -> &GuestMemory;

    /// Choices, time and the journal.
    fn scenario(&self) -> &Scenario;

    /// Map one page for the driver; replaces what was mapped there. `frame`
    /// may be RAM or device memory.
    ///
    /// # Errors
    /// [`PlatformError::CannotMap`].
    fn map(
        &mut self,
        address: Gva,
        frame: Pfn,
        protection: Protection,
    ) -> Result<(), PlatformError>;

    /// Unmap one page. Later accesses of the CPU fault.
    fn unmap(&mut self, address: Gva);

    /// Where an address leads, if it is mapped.
    fn translate(&self, address: Gva) -> Option<Gpa>;

    /// The CPU reads a device register at a guest-physical address.
    fn mmio_read(&mut self, address: Gpa, size: u8) -> u64;

    /// The CPU writes a device register.
    fn mmio_write(&mut self, address: Gpa, size: u8, value: u64);

    /// Read PCI configuration space: `size` 1, 2 or 4; all ones where there
    /// is no device.
    fn config_read(&mut self, device: RequesterId, offset: u16, size: u8) -> u32;

    /// Write PCI configuration space.
    fn config_write(&mut self, device: RequesterId, offset: u16, size: u8, value: u32);

    /// The PCI function loses all it holds, as over D3: it is as after
    /// power-on, and accesses it had under way are gone. Nothing, where there
    /// is no such function.
    fn reset_device(&mut self, device: RequesterId) {
        let _ = device;
    }

    /// The driver's stack now, interned in the journal.
    fn stack(&mut self) -> StackId;

    /// Read the driver's memory.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`]; part of `bytes` may have been filled.
    fn read(&self, address: Gva, bytes: &mut [u8]) -> Result<(), PlatformError> {
        for_each_page(address, bytes.len(), |at, range| {
            let gpa = self.translate(at).ok_or(PlatformError::NotMapped(at))?;
            let part = bytes.get_mut(range).ok_or(PlatformError::NotMapped(at))?;
            self.memory()
                .read(gpa, part)
                .map_err(|_| PlatformError::NotMapped(at))
        })
    }

    /// Write the driver's memory, whatever its protection.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`]; part may have been written.
    fn write(&mut self, address: Gva, bytes: &[u8]) -> Result<(), PlatformError> {
        for_each_page(address, bytes.len(), |at, range| {
            let gpa = self.translate(at).ok_or(PlatformError::NotMapped(at))?;
            let part = bytes.get(range).ok_or(PlatformError::NotMapped(at))?;
            self.memory()
                .write(gpa, part)
                .map_err(|_| PlatformError::NotMapped(at))
        })
    }

    /// Read a little-endian integer.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    fn read_u16(&self, address: Gva) -> Result<u16, PlatformError> {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Read a little-endian integer.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    fn read_u32(&self, address: Gva) -> Result<u32, PlatformError> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Read a little-endian integer.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    fn read_u64(&self, address: Gva) -> Result<u64, PlatformError> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Write a little-endian integer.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    fn write_u32(&mut self, address: Gva, value: u32) -> Result<(), PlatformError> {
        self.write(address, &value.to_le_bytes())
    }

    /// Write a little-endian integer.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    fn write_u64(&mut self, address: Gva, value: u64) -> Result<(), PlatformError> {
        self.write(address, &value.to_le_bytes())
    }
}

/// Split `length` bytes from `address` at page boundaries.
fn for_each_page(
    address: Gva,
    length: usize,
    mut visit: impl FnMut(Gva, std::ops::Range<usize>) -> Result<(), PlatformError>,
) -> Result<(), PlatformError> {
    let mut done = 0;
    while done < length {
        let at = address
            .checked_add(done as u64)
            .ok_or(PlatformError::NotMapped(address))?;
        let step = ((PAGE_SIZE - at.offset()) as usize).min(length - done);
        visit(at, done..done + step)?;
        done += step;
    }
    Ok(())
}
