//! The PCI bus driver: BARs, messages, the command register.

use super::spec::{
    BAR_FLAGS, BAR_IO, BAR_PREFETCHABLE, BAR_TYPE, BAR_TYPE_64, BAR_WINDOW, BAR0, BARS,
    CAPABILITIES, COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_MEMORY, FAULT_VECTOR,
    FIRST_DEVICE_VECTOR, HIGH_BAR_WINDOW, LAST_DEVICE_VECTOR, MAX_CAPABILITIES, MESSAGE_ADDRESS,
    MESSAGE_RANGE, MSIX, MSIX_BAR, MSIX_CONTROL, MSIX_ENABLE, MSIX_ENTRY, MSIX_FUNCTION_MASK,
    MSIX_SIZE, MSIX_TABLE, STATUS, STATUS_CAPABILITIES,
};
use super::{HalError, State};
use crate::platform::Platform;
use memory::{Gpa, PAGE_SIZE, RequesterId};

/// Device memory: a BAR where it was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryRange {
    /// Its number, 0–5.
    pub bar: u8,
    /// Where it is.
    pub address: Gpa,
    /// Bytes.
    pub length: u64,
    /// May reads be merged and repeated?
    pub prefetchable: bool,
}

/// A message of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageVector {
    /// Its number: the entry of the MSI-X table.
    pub message: u32,
    /// The interrupt vector it raises.
    pub vector: u8,
    /// Address of the message.
    pub address: u64,
    /// Data of the message.
    pub data: u32,
}

/// What a device was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Its BARs, ascending.
    pub memory: Vec<MemoryRange>,
    /// Its messages, ascending.
    pub messages: Vec<MessageVector>,
}

static NOTHING: Resources = Resources {
    memory: Vec::new(),
    messages: Vec::new(),
};

/// Who a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// A device's driver.
    Device {
        /// Which device.
        device: RequesterId,
        /// Number of the message.
        message: u32,
    },
    /// The HAL: see [`State::fault_interrupt`].
    IommuFault,
}

/// How far the windows for BARs are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Windows {
    low: u64,
    high: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            low: BAR_WINDOW.start,
            high: HIGH_BAR_WINDOW.start,
        }
    }
}

impl Windows {
    /// A place for `size` bytes, a power of two, aligned to it and to pages,
    /// so that no two BARs share one.
    fn take(&mut self, size: u64, wide: bool) -> Option<u64> {
        let size = size.max(PAGE_SIZE);
        let place = |next: &mut u64, end: u64| {
            let at = next.checked_next_multiple_of(size)?;
            let after = at.checked_add(size).filter(|&after| after <= end)?;
            *next = after;
            Some(at)
        };
        place(&mut self.low, BAR_WINDOW.end).or_else(|| {
            if wide {
                place(&mut self.high, HIGH_BAR_WINDOW.end)
            } else {
                None
            }
        })
    }
}

impl State {
    /// What a device was given; nothing if it is not known.
    #[must_use]
    pub fn resources(&self, device: RequesterId) -> &Resources {
        match self.devices.get(&device) {
            Some(known) => &known.resources,
            None => &NOTHING,
        }
    }

    /// Place a device's BARs and connect up to `messages` of its messages.
    /// Memory space is on afterwards, bus mastering is not: see
    /// [`State::enable_device`].
    ///
    /// # Errors
    /// [`HalError::NoRoom`].
    pub fn configure_device(
        &mut self,
        platform: &mut dyn Platform,
        device: RequesterId,
        messages: u32,
    ) -> Result<&Resources, HalError> {
        let memory = self.place_bars(platform, device)?;
        self.devices.entry(device).or_default().resources.memory = memory;
        let set = COMMAND_MEMORY | COMMAND_INTX_DISABLE;
        change_command(platform, device, set, COMMAND_BUS_MASTER);
        self.connect_interrupts(platform, device, messages);
        Ok(self.resources(device))
    }

    /// Size and place the BARs, with the device's memory space off (PCI
    /// 6.2.5.1). I/O BARs are left without an address.
    fn place_bars(
        &mut self,
        platform: &mut dyn Platform,
        device: RequesterId,
    ) -> Result<Vec<MemoryRange>, HalError> {
        change_command(platform, device, 0, COMMAND_MEMORY | COMMAND_BUS_MASTER);
        let mut placed = Vec::new();
        let mut bar = 0;
        while bar < BARS {
            let offset = BAR0 + 4 * u16::from(bar);
            let low = size_register(platform, device, offset);
            let wide = low & BAR_IO == 0 && low & BAR_TYPE == BAR_TYPE_64 && bar + 1 < BARS;
            let high = if wide {
                size_register(platform, device, offset + 4)
            } else {
                u32::MAX
            };
            let mask = u64::from(high) << 32 | u64::from(low & !BAR_FLAGS);
            let size = mask.wrapping_neg();
            // A register that is not there reads 0; a size is a power of two.
            if low & BAR_IO == 0 && low & !BAR_FLAGS != 0 || wide && high != 0 {
                let no_room = HalError::NoRoom { device, bar, size };
                let at = size
                    .is_power_of_two()
                    .then(|| self.bars.take(size, wide))
                    .flatten()
                    .ok_or(no_room)?;
                platform.config_write(device, offset, 4, at as u32);
                if wide {
                    platform.config_write(device, offset + 4, 4, (at >> 32) as u32);
                }
                placed.push(MemoryRange {
                    bar,
                    address: Gpa(at),
                    length: size,
                    prefetchable: low & BAR_PREFETCHABLE != 0,
                });
            }
            bar += if wide { 2 } else { 1 };
        }
        Ok(placed)
    }

    /// Program the first `count` entries of the device's MSI-X table, through
    /// its BAR, and turn MSI-X on. Fewer if the table, or the supply of
    /// vectors, is smaller; none if the device has no MSI-X. Memory space
    /// must be on.
    pub fn connect_interrupts(
        &mut self,
        platform: &mut dyn Platform,
        device: RequesterId,
        count: u32,
    ) {
        let Some(capability) = find_capability(platform, device, MSIX) else {
            return;
        };
        let control = platform.config_read(device, capability + MSIX_CONTROL, 2);
        let location = platform.config_read(device, capability + MSIX_TABLE, 4);
        let bar = (location & MSIX_BAR) as u8;
        let offset = u64::from(location & !MSIX_BAR);
        let entries = (control & MSIX_SIZE) + 1;
        let range = self
            .resources(device)
            .memory
            .iter()
            .find(|range| range.bar == bar)
            .filter(|range| offset + MSIX_ENTRY * u64::from(entries) <= range.length);
        let Some(table) = range.map(|range| Gpa(range.address.0 + offset)) else {
            log::warn!("the MSI-X table of device {device} is in none of its BARs");
            return;
        };
        self.vectors.retain(|_, (owner, _)| *owner != device);
        let mut messages = Vec::new();
        for message in 0..count.min(entries) {
            let free = (FIRST_DEVICE_VECTOR..=LAST_DEVICE_VECTOR)
                .find(|vector| !self.vectors.contains_key(vector));
            let Some(vector) = free else { break };
            self.vectors.insert(vector, (device, message));
            let entry = table.0 + MSIX_ENTRY * u64::from(message);
            // Edge-triggered, fixed delivery: the data is the vector.
            let data = u32::from(vector);
            platform.mmio_write(Gpa(entry), 4, MESSAGE_ADDRESS);
            platform.mmio_write(Gpa(entry + 4), 4, MESSAGE_ADDRESS >> 32);
            platform.mmio_write(Gpa(entry + 8), 4, u64::from(data));
            platform.mmio_write(Gpa(entry + 12), 4, 0);
            messages.push(MessageVector {
                message,
                vector,
                address: MESSAGE_ADDRESS,
                data,
            });
        }
        let on = control & !MSIX_FUNCTION_MASK | MSIX_ENABLE;
        platform.config_write(device, capability + MSIX_CONTROL, 2, on);
        self.devices.entry(device).or_default().resources.messages = messages;
    }

    /// Let the device answer and master the bus: it is being started.
    pub fn enable_device(&self, platform: &mut dyn Platform, device: RequesterId) {
        change_command(platform, device, COMMAND_MEMORY | COMMAND_BUS_MASTER, 0);
    }

    /// Keep the device from mastering the bus: it is stopped. It still
    /// answers, so that a late access of its driver reads what it would.
    pub fn disable_device(&self, platform: &mut dyn Platform, device: RequesterId) {
        change_command(platform, device, 0, COMMAND_BUS_MASTER);
    }

    /// The device goes to D3hot. It has no No_Soft_Reset, so that it comes
    /// back as from a reset: what it held, its BARs, its messages and its
    /// command register are lost (PCI Power Management 1.2, 5.4.1). Until
    /// then it neither answers at its BARs nor masters the bus.
    pub fn power_down(&self, platform: &mut dyn Platform, device: RequesterId) {
        change_command(platform, device, 0, COMMAND_MEMORY | COMMAND_BUS_MASTER);
        platform.reset_device(device);
    }

    /// The device comes back to D0: its BARs, its messages and its command
    /// register are restored, as the PCI bus driver does before the driver is
    /// told.
    pub fn power_up(&mut self, platform: &mut dyn Platform, device: RequesterId) {
        let given = self.resources(device).clone();
        for range in &given.memory {
            let register = BAR0 + 4 * u16::from(range.bar);
            let low = platform.config_read(device, register, 4);
            platform.config_write(device, register, 4, range.address.0 as u32);
            if low & BAR_TYPE == BAR_TYPE_64 {
                let high = (range.address.0 >> 32) as u32;
                platform.config_write(device, register + 4, 4, high);
            }
        }
        let set = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        change_command(platform, device, set, 0);
        if !given.messages.is_empty() {
            self.connect_interrupts(platform, device, given.messages.len() as u32);
        }
    }

    /// Who a message with this address and data is for.
    #[must_use]
    pub fn message_target(&self, address: u64, data: u32) -> Option<Interrupt> {
        if address & MESSAGE_RANGE != MESSAGE_ADDRESS {
            return None;
        }
        let vector = data as u8;
        if vector == FAULT_VECTOR {
            return Some(Interrupt::IommuFault);
        }
        let &(device, message) = self.vectors.get(&vector)?;
        Some(Interrupt::Device { device, message })
    }
}

/// Write all ones to a base address register and read back which bits it has.
fn size_register(platform: &mut dyn Platform, device: RequesterId, offset: u16) -> u32 {
    let old = platform.config_read(device, offset, 4);
    platform.config_write(device, offset, 4, u32::MAX);
    let mask = platform.config_read(device, offset, 4);
    platform.config_write(device, offset, 4, old);
    mask
}

fn change_command(platform: &mut dyn Platform, device: RequesterId, set: u32, clear: u32) {
    let old = platform.config_read(device, COMMAND, 2);
    platform.config_write(device, COMMAND, 2, old & !clear | set);
}

/// Where a capability lies (PCI 6.7). A looped list ends somewhere too.
fn find_capability(platform: &mut dyn Platform, device: RequesterId, wanted: u32) -> Option<u16> {
    if platform.config_read(device, STATUS, 2) & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = platform.config_read(device, CAPABILITIES, 1) as u16 & 0xfc;
    for _ in 0..MAX_CAPABILITIES {
        if at < 0x40 {
            return None;
        }
        let header = platform.config_read(device, at, 2);
        if header & 0xff == wanted {
            return Some(at);
        }
        at = (header >> 8) as u16 & 0xfc;
    }
    None
}
