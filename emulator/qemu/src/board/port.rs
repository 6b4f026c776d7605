//! One PCI function as vfio-user shows it: regions, interrupts, reset. What
//! lies behind is a [`Face`]; where its accesses go is the [`Dma`] that comes
//! with each call.

use super::Failure;
use super::claims::Claims;
use crate::interrupts::{Changed, Interrupts, SetIrqs};
use crate::message::{Errno, Request};
use crate::spec::{self, uapi};
use gpu::VirtioGpu;
use iommu::Dma;
use pci::Function;
use std::os::fd::OwnedFd;

/// BAR of the transport, and where the device status is in it (virtio 1.2
/// §4.1.4.3).
const TRANSPORT_BAR: u8 = 0;
const DEVICE_STATUS: u64 = 0x14;
/// BAR of the MSI-X table.
const MSIX_BAR: u8 = 1;
const MSIX_ENTRY: u64 = 16;
/// Configuration space: command register, first capability, and the MSI-X
/// capability (PCI Local Bus 3.0 §6.2.2, §6.7, §6.8.2).
const COMMAND: u16 = 0x04;
const CAPABILITIES: u16 = 0x34;
const CAPABILITY_MSIX: u32 = 0x11;
const CONFIG_SIZE: u64 = 256;
/// Where the entries of the MSI-X table send their messages. The client keeps
/// the guest's table and gives us an event file for each vector; a message's
/// data is its vector here.
pub(super) const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

/// What a client can touch of a function.
pub(super) trait Face {
    fn function(&self) -> &Function;
    fn config_read(&mut self, dma: Dma<'_>, offset: u16, size: u8) -> u32;
    fn config_write(&mut self, dma: Dma<'_>, offset: u16, size: u8, value: u32);
    fn bar_read(&mut self, dma: Dma<'_>, bar: u8, offset: u64, size: u8) -> u64;
    fn bar_write(&mut self, dma: Dma<'_>, bar: u8, offset: u64, size: u8, value: u64);
}

impl Face for VirtioGpu {
    fn function(&self) -> &Function {
        Self::function(self)
    }

    fn config_read(&mut self, dma: Dma<'_>, offset: u16, size: u8) -> u32 {
        Self::config_read(self, dma, offset, size)
    }

    fn config_write(&mut self, dma: Dma<'_>, offset: u16, size: u8, value: u32) {
        Self::config_write(self, dma, offset, size, value);
    }

    fn bar_read(&mut self, dma: Dma<'_>, bar: u8, offset: u64, size: u8) -> u64 {
        Self::bar_read(self, dma, bar, offset, size)
    }

    fn bar_write(&mut self, dma: Dma<'_>, bar: u8, offset: u64, size: u8, value: u64) {
        Self::bar_write(self, dma, bar, offset, size, value);
    }
}

/// A function, its way to memory and its interrupts, for one command.
pub(super) struct Port<'a> {
    pub face: &'a mut dyn Face,
    pub dma: Dma<'a>,
    pub interrupts: &'a mut Interrupts,
    /// The region of dmasan's own, if it has one.
    pub claims: Option<&'a mut Claims>,
}

impl Port<'_> {
    pub fn region_info(&self, index: u32) -> Result<Vec<u8>, Failure> {
        if index >= uapi::VFIO_PCI_NUM_REGIONS {
            return Err(Errno::INVAL.into());
        }
        let size = self.region_size(index);
        let flags = match size {
            0 => 0,
            _ => uapi::VFIO_REGION_INFO_FLAG_READ | uapi::VFIO_REGION_INFO_FLAG_WRITE,
        };
        let mut body = words(&[32, flags, index, 0]);
        body.extend_from_slice(&size.to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        Ok(body)
    }

    /// Bytes of a region; 0 if there is none.
    fn region_size(&self, region: u32) -> u64 {
        match region {
            uapi::VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_SIZE,
            // BARs are the first regions.
            0..=5 => self.face.function().bar_size(region as u8).into(),
            _ => 0,
        }
    }

    fn check(&self, region: u32, offset: u64, count: usize) -> Result<(), Errno> {
        let end = offset.checked_add(count as u64).ok_or(Errno::INVAL)?;
        if count == 0 || count > spec::MAX_TRANSFER || end > self.region_size(region) {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    pub fn region_read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        self.check(region, offset, count as usize)?;
        let mut body = [&offset.to_le_bytes()[..], &region.to_le_bytes()].concat();
        body.extend_from_slice(&count.to_le_bytes());
        for (at, size) in pieces(offset, count as usize, widest(region)) {
            let value = self.read(region, at, size);
            body.extend(value.to_le_bytes().iter().take(usize::from(size)));
        }
        Ok(body)
    }

    pub fn region_write(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        self.check(region, offset, data.len())?;
        let mut rest = data;
        for (at, size) in pieces(offset, data.len(), widest(region)) {
            let (piece, later) = rest.split_at(usize::from(size).min(rest.len()));
            rest = later;
            let mut value = [0; 8];
            for (to, from) in value.iter_mut().zip(piece) {
                *to = *from;
            }
            self.write(region, at, size, u64::from_le_bytes(value));
        }
        let mut body = [&offset.to_le_bytes()[..], &region.to_le_bytes()].concat();
        body.extend_from_slice(&(data.len() as u32).to_le_bytes());
        Ok(body)
    }

    fn read(&mut self, region: u32, at: u64, size: u8) -> u64 {
        let dma = self.dma;
        match region {
            uapi::VFIO_PCI_CONFIG_REGION_INDEX => {
                self.face.config_read(dma, at as u16, size).into()
            }
            bar if bar as u8 == spec::guest::BAR => self
                .claims
                .as_ref()
                .map_or(0, |claims| claims.read(at, size)),
            bar => self.face.bar_read(dma, bar as u8, at, size),
        }
    }

    fn write(&mut self, region: u32, at: u64, size: u8, value: u64) {
        let vectors = self.interrupts.vectors() as u64;
        let dma = self.dma;
        match region {
            uapi::VFIO_PCI_CONFIG_REGION_INDEX => {
                self.face.config_write(dma, at as u16, size, value as u32);
            }
            bar if bar as u8 == spec::guest::BAR => {
                if let Some(claims) = &mut self.claims {
                    claims.write(dma, at, size, value);
                }
            }
            // The guest's table is the client's affair; ours says which file.
            bar if bar as u8 == MSIX_BAR && at < vectors * MSIX_ENTRY => {}
            bar => self.face.bar_write(dma, bar as u8, at, size, value),
        }
    }

    pub fn irq_info(&self, index: u32) -> Result<Vec<u8>, Errno> {
        let (count, flags) = self.interrupts.info(index).ok_or(Errno::INVAL)?;
        Ok(words(&[16, flags, index, count]))
    }

    pub fn set_irqs(&mut self, irqs: SetIrqs<'_>) -> Result<(), Errno> {
        if self.interrupts.set(irqs)? == Changed::Vectors {
            self.connect_vectors();
        }
        Ok(())
    }

    /// A vector that has a file sends; one that has none is masked, and keeps
    /// its message until it gets one.
    fn connect_vectors(&mut self) {
        for vector in 0..self.interrupts.vectors() {
            let connected = self.interrupts.is_connected(vector);
            let at = vector as u64 * MSIX_ENTRY;
            let entry = [MESSAGE_ADDRESS, 0, vector as u32, u32::from(!connected)];
            for (word, value) in entry.into_iter().enumerate() {
                let at = at + 4 * word as u64;
                self.face.bar_write(self.dma, MSIX_BAR, at, 4, value.into());
            }
        }
    }

    /// As after power-on, but for the BARs, which the client places again.
    pub fn reset(&mut self) {
        let dma = self.dma;
        self.face.bar_write(dma, TRANSPORT_BAR, DEVICE_STATUS, 1, 0);
        if let Some((capability, _)) = msix(self.face, dma) {
            self.face.config_write(dma, capability + 2, 2, 0);
        }
        self.face.config_write(dma, COMMAND, 2, 0);
        self.interrupts.reset();
        if let Some(claims) = &mut self.claims {
            claims.reset(dma);
        }
    }
}

/// Widest access of a region, bytes.
fn widest(region: u32) -> u8 {
    if region == uapi::VFIO_PCI_CONFIG_REGION_INDEX {
        4
    } else {
        8
    }
}

/// A range as naturally aligned accesses of 1, 2, 4 or (not in configuration
/// space) 8 bytes, as a bus does it.
fn pieces(offset: u64, count: usize, widest: u8) -> impl Iterator<Item = (u64, u8)> {
    let (mut at, end) = (offset, offset.saturating_add(count as u64));
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|&left| left != 0)?;
        let fits = |&size: &u8| {
            size <= widest && u64::from(size) <= left && at.is_multiple_of(size.into())
        };
        let size = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let piece = (at, size);
        at += u64::from(size);
        Some(piece)
    })
}

/// Where the MSI-X capability is, and how many vectors it has.
pub(super) fn msix(face: &mut dyn Face, dma: Dma<'_>) -> Option<(u16, u16)> {
    let mut at = face.config_read(dma, CAPABILITIES, 1) as u16;
    // A list in 256 bytes has no more members.
    for _ in 0..64 {
        if at == 0 {
            break;
        }
        if face.config_read(dma, at, 1) == CAPABILITY_MSIX {
            let control = face.config_read(dma, at + 2, 2) as u16;
            return Some((at, (control & 0x7ff) + 1));
        }
        at = face.config_read(dma, at + 1, 1) as u16;
    }
    None
}

/// A command that is about one function only.
pub(super) fn on_port(
    port: &mut Port<'_>,
    request: Request<'_>,
    files: Vec<OwnedFd>,
) -> Result<Vec<u8>, Failure> {
    Ok(match request {
        Request::RegionInfo { index } => port.region_info(index)?,
        Request::IrqInfo { index } => port.irq_info(index)?,
        Request::SetIrqs {
            flags,
            index,
            start,
            count,
            data,
        } => {
            port.set_irqs(SetIrqs {
                flags,
                index,
                start,
                count,
                data,
                files,
            })?;
            Vec::new()
        }
        Request::RegionRead {
            offset,
            region,
            count,
        } => port.region_read(region, offset, count)?,
        Request::RegionWrite {
            offset,
            region,
            data,
        } => port.region_write(region, offset, data)?,
        Request::Reset => {
            port.reset();
            Vec::new()
        }
        _ => return Err(Errno::INVAL.into()),
    })
}

/// VFIO_DEVICE_GET_INFO, which is the same for each.
pub(super) fn device_info(argsz: u32) -> Result<Vec<u8>, Failure> {
    // What the client has no room for it does not get: newer clients take a
    // longer structure.
    if argsz < 16 {
        return Err(Errno::INVAL.into());
    }
    let flags = uapi::VFIO_DEVICE_FLAGS_RESET | uapi::VFIO_DEVICE_FLAGS_PCI;
    Ok(words(&[
        16,
        flags,
        uapi::VFIO_PCI_NUM_REGIONS,
        uapi::VFIO_PCI_NUM_IRQS,
    ]))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
