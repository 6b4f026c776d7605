//! Configuration space: bytes, which of them can be written, and the base
//! address registers (PCI Local Bus 3.0 §6).

use crate::spec::config as spec;
use memory::Gpa;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// Class code, 24 bits: base class, subclass, interface.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
}

/// The configuration space of one function. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConfigSpace {
    bytes: [u8; spec::SIZE],
    /// Bits that a write changes.
    writable: [u8; spec::SIZE],
    /// Sizes of the memory BARs; 0 is none.
    bars: [u32; spec::BARS],
    /// The capability that the next one is linked from, and the free byte
    /// after it.
    last: usize,
    free: usize,
}

impl ConfigSpace {
    /// A type 0 header with no BAR and no capability.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; spec::SIZE],
            writable: [0; spec::SIZE],
            bars: [0; spec::BARS],
            last: usize::from(spec::CAPABILITIES),
            free: 0x40,
        };
        space.set(spec::VENDOR_ID, &identity.vendor.to_le_bytes());
        space.set(spec::DEVICE_ID, &identity.device.to_le_bytes());
        space.set(spec::REVISION_ID, &[identity.revision]);
        let class = identity.class.to_le_bytes();
        space.set(spec::CLASS_CODE, &class[..3]);
        space.set(
            spec::SUBSYSTEM_VENDOR_ID,
            &identity.subsystem_vendor.to_le_bytes(),
        );
        space.set(spec::SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        // INTA#: without MSI-X a virtio driver needs an interrupt, and the
        // status register then shows its level.
        space.set(spec::INTERRUPT_PIN, &[1]);
        let command = spec::COMMAND_MEMORY
            | spec::COMMAND_BUS_MASTER
            | spec::COMMAND_PARITY
            | spec::COMMAND_SERR
            | spec::COMMAND_INTX_DISABLE;
        space.allow(spec::COMMAND, &command.to_le_bytes());
        space.allow(spec::CACHE_LINE_SIZE, &[0xff]);
        space.allow(spec::INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Give the function a 32-bit, non-prefetchable memory BAR: one that any
    /// firmware can place. `size` must be a power of two of at least 16;
    /// anything else is rounded up to one.
    #[must_use]
    pub fn with_bar(mut self, index: usize, size: u32) -> Self {
        let size = size.max(16).checked_next_power_of_two().unwrap_or(1 << 31);
        if let Some(bar) = self.bars.get_mut(index) {
            *bar = size;
            // Address bits below the size are hardwired to zero: that is the
            // whole sizing protocol (§6.2.5.1).
            let register = spec::BAR0 + 4 * index as u16;
            self.allow(register, &(!(size - 1)).to_le_bytes());
        }
        self
    }

    /// Append a capability with this id and body (what follows the id and
    /// the link); `writable` masks the body. Says where it went, or `None`
    /// when the space is full.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u16> {
        let at = self.free;
        let end = (at + 2 + body.len()).next_multiple_of(4);
        if end > spec::SIZE {
            return None;
        }
        self.set(at as u16, &[id, 0]);
        self.set(at as u16 + 2, body);
        self.allow(at as u16 + 2, writable);
        // The header's pointer is one byte; a capability's link is its second.
        let link = if self.last == usize::from(spec::CAPABILITIES) {
            self.last
        } else {
            self.last + 1
        };
        self.set(link as u16, &[at as u8]);
        let status = self.u16(spec::STATUS) | spec::STATUS_CAPABILITIES;
        self.set(spec::STATUS, &status.to_le_bytes());
        self.last = at;
        self.free = end;
        Some(at as u16)
    }

    /// Read 1, 2 or 4 bytes. What is not there reads as ones.
    #[must_use]
    pub fn read(&self, offset: u16, size: u8) -> u32 {
        (0..4).rev().fold(0, |value, at| {
            let byte = if at < size {
                let place = usize::from(offset) + usize::from(at);
                self.bytes.get(place).copied().unwrap_or(0xff)
            } else {
                0
            };
            value << 8 | u32::from(byte)
        })
    }

    /// Write 1, 2 or 4 bytes; only writable bits change.
    pub fn write(&mut self, offset: u16, size: u8, value: u32) {
        for (at, new) in value
            .to_le_bytes()
            .iter()
            .enumerate()
            .take(usize::from(size))
        {
            let place = usize::from(offset) + at;
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(place), self.writable.get(place))
            {
                *byte = (*byte & !mask) | (new & mask);
            }
        }
    }

    /// A 16-bit register.
    #[must_use]
    pub fn u16(&self, offset: u16) -> u16 {
        self.read(offset, 2) as u16
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.u16(spec::COMMAND)
    }

    /// Show or hide the interrupt status bit.
    pub fn set_interrupt_status(&mut self, asserted: bool) {
        let mut status = self.u16(spec::STATUS) & !spec::STATUS_INTERRUPT;
        if asserted {
            status |= spec::STATUS_INTERRUPT;
        }
        self.set(spec::STATUS, &status.to_le_bytes());
    }

    /// Which BAR answers at `address`, and at which offset. A BAR at address
    /// 0 is one that nobody placed.
    #[must_use]
    pub fn decode(&self, address: Gpa) -> Option<(u8, u64)> {
        if self.command() & spec::COMMAND_MEMORY == 0 {
            return None;
        }
        self.bars.iter().enumerate().find_map(|(index, &size)| {
            let base = u64::from(self.bar(index)?);
            let offset = address.0.checked_sub(base)?;
            (offset < u64::from(size)).then_some((index as u8, offset))
        })
    }

    /// Where BAR `index` was placed.
    #[must_use]
    pub fn bar(&self, index: usize) -> Option<u32> {
        let size = *self.bars.get(index)?;
        let base = self.read(spec::BAR0 + 4 * index as u16, 4) & !spec::BAR_FLAGS;
        (size != 0 && base != 0).then_some(base)
    }

    /// Bytes of BAR `index`; 0 if there is none.
    #[must_use]
    pub fn bar_size(&self, index: usize) -> u32 {
        self.bars.get(index).copied().unwrap_or(0)
    }

    /// Put `bytes` into the space whatever the guest may write.
    fn set(&mut self, offset: u16, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(offset.into()).zip(bytes) {
            *place = *byte;
        }
    }

    fn allow(&mut self, offset: u16, mask: &[u8]) {
        for (place, byte) in self.writable.iter_mut().skip(offset.into()).zip(mask) {
            *place = *byte;
        }
    }
}
