//! Finding the virtio structures in PCI configuration space (virtio 1.2
//! §4.1.4), and the command register.

use crate::callbacks::Callbacks;
use crate::nt::Result;
use crate::spec::nt::{
    INTERRUPT_MESSAGE, PartialDescriptor, RESOURCE_INTERRUPT, RESOURCE_MEMORY, ResourceList,
    STATUS_DEVICE_CONFIGURATION_ERROR, STATUS_NOT_SUPPORTED,
};
use crate::spec::pci::{
    BAR_ADDRESS, BAR_IO, BAR_TYPE, BAR_TYPE_64, BAR0, BARS, CAPABILITIES, CAPABILITIES_MAX,
    CAPABILITY_VENDOR, COMMAND, DEVICE_GPU, DEVICE_ID, STATUS, STATUS_CAPABILITIES, VENDOR_ID,
    VENDOR_VIRTIO,
};
use crate::spec::telling;
use crate::spec::virtio::{
    CAP_BAR, CAP_CFG_TYPE, CAP_LENGTH, CAP_NOTIFY_MULTIPLIER, CAP_OFFSET, CFG_COMMON, CFG_DEVICE,
    CFG_ISR, CFG_NOTIFY, CFG_VENDOR,
};

/// Partial descriptors read of a resource list at most; a function has six
/// memory ranges and 2048 messages.
const DESCRIPTORS_MAX: u32 = 6 + 2048;

/// Where a virtio structure lies.
#[derive(Clone, Copy, Default)]
pub struct Location {
    /// Base address register.
    pub bar: u8,
    /// Offset into it.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

/// What the configuration space says about the function.
#[derive(Clone, Copy, Default)]
pub struct Function {
    /// Common configuration.
    pub common: Location,
    /// Notifications.
    pub notify: Location,
    /// Interrupt status.
    pub isr: Location,
    /// Device-specific configuration.
    pub device: Location,
    /// dmasan's region, if there is one.
    pub telling: Location,
    /// Bytes between two queues' notification addresses.
    pub notify_multiplier: u32,
    /// Memory base addresses; 0 for none.
    pub bars: [u64; BARS],
}

/// What the plug-and-play manager assigned.
#[derive(Clone, Copy, Default)]
pub struct Assigned {
    /// Bytes of each base address register, by its number; 0 for none.
    pub bar_bytes: [u32; BARS],
    /// Message interrupts.
    pub messages: u32,
    /// Line interrupts.
    pub lines: u32,
}

fn read8(callbacks: &Callbacks, offset: u32) -> Result<u8> {
    let mut bytes = [0; 1];
    callbacks.read_config(offset, &mut bytes)?;
    Ok(bytes[0])
}

fn read16(callbacks: &Callbacks, offset: u32) -> Result<u16> {
    let mut bytes = [0; 2];
    callbacks.read_config(offset, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

fn read32(callbacks: &Callbacks, offset: u32) -> Result<u32> {
    let mut bytes = [0; 4];
    callbacks.read_config(offset, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Reads the function's identity, base addresses and virtio capabilities.
#[inline(never)]
pub fn discover(callbacks: &Callbacks) -> Result<Function> {
    if read16(callbacks, VENDOR_ID)? != VENDOR_VIRTIO || read16(callbacks, DEVICE_ID)? != DEVICE_GPU
    {
        return Err(STATUS_NOT_SUPPORTED);
    }
    let mut function = Function::default();
    read_bars(callbacks, &mut function.bars)?;
    walk_capabilities(callbacks, &mut function)?;
    if function.common.length == 0
        || function.notify.length == 0
        || function.isr.length == 0
        || function.device.length == 0
    {
        return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
    }
    Ok(function)
}

fn read_bars(callbacks: &Callbacks, bars: &mut [u64; BARS]) -> Result<()> {
    let mut index = 0;
    while index < BARS {
        let low = read32(callbacks, BAR0 + 4 * index as u32)?;
        let wide = low & BAR_IO == 0 && low & BAR_TYPE == BAR_TYPE_64;
        if low & BAR_IO == 0 {
            let high = if wide && index + 1 < BARS {
                read32(callbacks, BAR0 + 4 * (index as u32 + 1))?
            } else {
                0
            };
            bars[index] = u64::from(high) << 32 | u64::from(low & BAR_ADDRESS);
        }
        index += if wide { 2 } else { 1 };
    }
    Ok(())
}

fn walk_capabilities(callbacks: &Callbacks, function: &mut Function) -> Result<()> {
    if read16(callbacks, STATUS)? & STATUS_CAPABILITIES == 0 {
        return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
    }
    let mut at = u32::from(read8(callbacks, CAPABILITIES)? & !3);
    // A list that loops must not hold the machine.
    for _ in 0..CAPABILITIES_MAX {
        if at == 0 {
            return Ok(());
        }
        let id = read16(callbacks, at)?;
        if id as u8 == CAPABILITY_VENDOR {
            read_structure(callbacks, at, function)?;
        }
        at = u32::from((id >> 8) as u8 & !3);
    }
    Err(STATUS_DEVICE_CONFIGURATION_ERROR)
}

fn read_structure(callbacks: &Callbacks, at: u32, function: &mut Function) -> Result<()> {
    let kind = read8(callbacks, at + CAP_CFG_TYPE)?;
    if kind == CFG_VENDOR {
        return read_vendor_data(callbacks, at, function);
    }
    let location = Location {
        bar: read8(callbacks, at + CAP_BAR)?,
        offset: read32(callbacks, at + CAP_OFFSET)?,
        length: read32(callbacks, at + CAP_LENGTH)?,
    };
    // Reserved register numbers are to be ignored (§4.1.4).
    if usize::from(location.bar) >= BARS {
        return Ok(());
    }
    let place = match kind {
        CFG_COMMON => &mut function.common,
        CFG_NOTIFY => &mut function.notify,
        CFG_ISR => &mut function.isr,
        CFG_DEVICE => &mut function.device,
        _ => return Ok(()),
    };
    // The device lists them in its order of preference; the first counts.
    if place.length == 0 {
        *place = location;
        if kind == CFG_NOTIFY {
            function.notify_multiplier = read32(callbacks, at + CAP_NOTIFY_MULTIPLIER)?;
        }
    }
    Ok(())
}

/// What stands in vendor data is its vendor's affair (§4.1.4.8): only one
/// format is known here.
fn read_vendor_data(callbacks: &Callbacks, at: u32, function: &mut Function) -> Result<()> {
    if read16(callbacks, at + telling::CAP_VENDOR)? == telling::VENDOR
        && read16(callbacks, at + telling::CAP_VERSION)? == telling::VERSION
        && read32(callbacks, at + telling::CAP_MAGIC)? == telling::MAGIC
    {
        function.telling = Location {
            bar: read8(callbacks, at + telling::CAP_BAR)?,
            offset: read32(callbacks, at + telling::CAP_OFFSET)?,
            length: read32(callbacks, at + telling::CAP_LENGTH)?,
        };
    }
    Ok(())
}

/// Sets `bits` of the command register where they are clear; answers
/// whether any was.
#[inline(never)]
pub fn enable(callbacks: &Callbacks, bits: u16) -> Result<bool> {
    let command = read16(callbacks, COMMAND)?;
    if command & bits == bits {
        return Ok(false);
    }
    callbacks.write_config(COMMAND, &(command | bits).to_le_bytes())?;
    Ok(true)
}

/// Clears `bits` of the command register.
#[inline(never)]
pub fn disable(callbacks: &Callbacks, bits: u16) -> Result<()> {
    let command = read16(callbacks, COMMAND)?;
    callbacks.write_config(COMMAND, &(command & !bits).to_le_bytes())
}

/// Matches the assigned resources with the base address registers, by
/// address: the list does not number them.
///
/// # Safety
/// `list` must be null or point to a whole CM_RESOURCE_LIST.
#[inline(never)]
pub unsafe fn assigned(list: *const ResourceList, bars: &[u64; BARS]) -> Assigned {
    let mut assigned = Assigned::default();
    if list.is_null() {
        return assigned;
    }
    // SAFETY: the caller's promise.
    let header = unsafe { &*list };
    if header.count == 0 {
        return assigned;
    }
    // SAFETY: the descriptors follow the header.
    let first = unsafe { list.add(1) }.cast::<PartialDescriptor>();
    for index in 0..header.partial_count.min(DESCRIPTORS_MAX) {
        // SAFETY: below the list's own count.
        let descriptor = unsafe { first.add(index as usize).read_unaligned() };
        match descriptor.kind {
            RESOURCE_MEMORY => {
                for (bar, bytes) in bars.iter().zip(&mut assigned.bar_bytes) {
                    if *bar != 0 && *bar == descriptor.start {
                        *bytes = descriptor.length;
                    }
                }
            }
            RESOURCE_INTERRUPT if descriptor.flags & INTERRUPT_MESSAGE != 0 => {
                assigned.messages += 1;
            }
            RESOURCE_INTERRUPT => assigned.lines += 1,
            _ => {}
        }
    }
    assigned
}
