//! The common configuration structure (virtio 1.2 §4.1.4.3).

use super::{Effect, Transport};
use crate::msix::read_bytes;
use crate::spec::virtio::{self as spec, common as reg};

impl Transport {
    /// Read at any offset, 1 to 8 bytes. §4.1.3.1 asks for accesses of the
    /// field's own width; others get the bytes that are there.
    pub(crate) fn common_read(&self, offset: u64, size: u8) -> u64 {
        let image = self.common_image();
        read_bytes(size, |at| {
            image.get(usize::try_from(offset + at).ok()?).copied()
        })
    }

    fn common_image(&self) -> [u8; reg::SIZE as usize] {
        let mut image = [0; reg::SIZE as usize];
        let mut put = |(offset, size): reg::Register, value: u64| {
            let bytes = value.to_le_bytes();
            let places = image.iter_mut().skip(offset as usize);
            for (place, byte) in places.zip(bytes.iter().take(size.into())) {
                *place = *byte;
            }
        };
        put(
            reg::DEVICE_FEATURE_SELECT,
            self.device_feature_select.into(),
        );
        put(
            reg::DEVICE_FEATURE,
            half(self.offered, self.device_feature_select),
        );
        put(
            reg::DRIVER_FEATURE_SELECT,
            self.driver_feature_select.into(),
        );
        put(
            reg::DRIVER_FEATURE,
            half(self.accepted, self.driver_feature_select),
        );
        put(reg::CONFIG_MSIX_VECTOR, self.config_vector.into());
        put(reg::NUM_QUEUES, self.queues.len() as u64);
        put(reg::DEVICE_STATUS, self.status.into());
        put(reg::CONFIG_GENERATION, self.config_generation.into());
        put(reg::QUEUE_SELECT, self.queue_select.into());
        // A queue that is not there reads as zeros (§4.1.4.3.1).
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(reg::QUEUE_SIZE, queue.state.size.into());
            put(reg::QUEUE_MSIX_VECTOR, queue.vector.into());
            put(reg::QUEUE_ENABLE, queue.state.ready.into());
            put(reg::QUEUE_NOTIFY_OFF, self.queue_select.into());
            put(reg::QUEUE_DESC, queue.state.desc_table);
            put(reg::QUEUE_DRIVER, queue.state.avail_ring);
            put(reg::QUEUE_DEVICE, queue.state.used_ring);
        }
        image
    }

    /// Write at any offset, 1 to 8 bytes; `vectors` is how many MSI-X has.
    /// Only a register's own width is taken, or half of a 64-bit one; and
    /// 8 bytes at two adjacent 32-bit registers are two writes, as on a bus.
    pub(crate) fn common_write(
        &mut self,
        offset: u64,
        size: u8,
        value: u64,
        vectors: u16,
    ) -> Effect {
        let word = value as u32;
        let short = value as u16;
        match (offset, size) {
            reg::DEVICE_FEATURE_SELECT => self.device_feature_select = word,
            reg::DRIVER_FEATURE_SELECT => self.driver_feature_select = word,
            reg::DRIVER_FEATURE => self.accept(word),
            reg::CONFIG_MSIX_VECTOR => self.config_vector = known(short, vectors),
            reg::DEVICE_STATUS => return self.set_status(value as u8),
            reg::QUEUE_SELECT => self.queue_select = short,
            (0x00 | 0x08, 8) => {
                self.common_write(offset, 4, value & 0xffff_ffff, vectors);
                self.common_write(offset + 4, 4, value >> 32, vectors);
            }
            _ => return self.queue_write(offset, size, value, vectors),
        }
        Effect::None
    }

    /// Features can be chosen until FEATURES_OK (§3.1.1).
    fn accept(&mut self, word: u32) {
        if self.status & spec::STATUS_FEATURES_OK != 0 {
            return;
        }
        let word = u64::from(word);
        match self.driver_feature_select {
            0 => self.accepted = self.accepted & !0xffff_ffff | word,
            1 => self.accepted = self.accepted & 0xffff_ffff | word << 32,
            // No feature has a number of 64 or more: writing one there can
            // only ask for what was not offered.
            _ => {}
        }
    }

    /// The registers of the selected queue.
    fn queue_write(&mut self, offset: u64, size: u8, value: u64, vectors: u16) -> Effect {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return Effect::None;
        };
        let short = value as u16;
        if (offset, size) == reg::QUEUE_MSIX_VECTOR {
            queue.vector = known(short, vectors);
            return Effect::None;
        }
        // An enabled queue does not change under the device's feet.
        if queue.state.ready {
            return Effect::None;
        }
        let state = &mut queue.state;
        match (offset, size) {
            reg::QUEUE_SIZE => {
                if short.is_power_of_two() && short <= state.max_size {
                    state.size = short;
                }
            }
            reg::QUEUE_ENABLE if short == 1 => {
                if let Err(error) = queue.enable(self.queue_select) {
                    return Effect::Broken(error);
                }
                return Effect::Enabled(self.queue_select, queue.areas());
            }
            _ => {
                for (register, field) in [
                    (reg::QUEUE_DESC, &mut state.desc_table),
                    (reg::QUEUE_DRIVER, &mut state.avail_ring),
                    (reg::QUEUE_DEVICE, &mut state.used_ring),
                ] {
                    write_address(field, offset.wrapping_sub(register.0), size, value);
                }
            }
        }
        Effect::None
    }
}

/// One of the two 32-bit halves of the feature bits.
fn half(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}

/// A vector that exists, or "no vector": how a device says that it could not
/// have it (§4.1.5.1.2.1).
fn known(vector: u16, vectors: u16) -> u16 {
    if vector < vectors {
        vector
    } else {
        spec::NO_VECTOR
    }
}

/// Write a 64-bit address whole or by halves (§4.1.3.1).
fn write_address(field: &mut u64, at: u64, size: u8, value: u64) {
    match (at, size) {
        (0, 8) => *field = value,
        (0, 4) => *field = *field & !0xffff_ffff | value & 0xffff_ffff,
        (4, 4) => *field = *field & 0xffff_ffff | value << 32,
        _ => {}
    }
}
