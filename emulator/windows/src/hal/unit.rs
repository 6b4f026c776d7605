//! Bringing the remapping unit up, and its registers.

use super::domain::DomainKind;
use super::queue::{Queue, Request};
use super::spec::{FAULT_VECTOR, MESSAGE_ADDRESS, UNIT, capability};
use super::{HalError, State};
use crate::mm;
use crate::platform::Platform;
use iommu::spec::registers as reg;
use memory::{Gpa, Pfn, RequesterId};

/// Reads of a register or status before the unit counts as dead. Ours
/// answers at once.
pub(super) const PATIENCE: u32 = 1000;

/// What is known of the remapping unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unit {
    /// CAP.
    pub capabilities: u64,
    /// The root table.
    pub root: Pfn,
    pub queue: Queue,
}

impl Unit {
    /// May the unit cache that something is not present?
    pub fn caches_absence(&self) -> bool {
        self.capabilities & capability::CACHING_MODE != 0
    }

    /// The highest level of tables whose entries may be leaves.
    pub fn largest_leaf(&self) -> u8 {
        let offered = |bit| self.capabilities & bit != 0;
        match (
            offered(capability::LEAVES_2M),
            offered(capability::LEAVES_1G),
        ) {
            (true, true) => 3,
            (true, false) => 2,
            _ => 1,
        }
    }

    /// Largest address mask of a page-selective invalidation; `None` if it
    /// has none.
    pub fn max_address_mask(&self) -> Option<u8> {
        let mask = (self.capabilities >> capability::MAX_ADDRESS_MASK) & 0x3f;
        (self.capabilities & capability::PAGE_SELECTIVE != 0).then_some(mask as u8)
    }
}

pub(super) fn read(platform: &mut dyn Platform, register: u16, size: u8) -> u64 {
    platform.mmio_read(Gpa(UNIT.0 + u64::from(register)), size)
}

pub(super) fn write(platform: &mut dyn Platform, register: u16, size: u8, value: u64) {
    platform.mmio_write(Gpa(UNIT.0 + u64::from(register)), size, value);
}

/// Give a command and wait for its status bit. The bits that stay are those
/// of the status (VT-d 11.4.4).
fn command(platform: &mut dyn Platform, bit: u32, what: &'static str) -> Result<(), HalError> {
    const LASTING: u32 = reg::TRANSLATION_ENABLE | reg::QUEUE_ENABLE;
    let status = read(platform, reg::GSTS, 4) as u32;
    let value = (status & LASTING) | bit;
    write(platform, reg::GCMD, 4, u64::from(value));
    for _ in 0..PATIENCE {
        if read(platform, reg::GSTS, 4) as u32 & bit != 0 {
            return Ok(());
        }
    }
    Err(HalError::Timeout(what))
}

impl State {
    /// Bring the remapping unit up: every device of `devices` passes through,
    /// translation is on. Tables come from `mm`.
    ///
    /// # Errors
    /// [`HalError`]; the machine cannot be used then.
    pub fn init(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        devices: &[RequesterId],
    ) -> Result<(), HalError> {
        let capabilities = read(platform, reg::CAP, 8);
        let extended = read(platform, reg::ECAP, 8);
        let needed = [
            (capabilities, capability::FOUR_LEVELS, "four-level tables"),
            (extended, capability::QUEUED, "queued invalidation"),
            (extended, capability::PASS_THROUGH, "pass-through"),
        ];
        for (register, bit, what) in needed {
            if register & bit == 0 {
                return Err(HalError::Lacks(what));
            }
        }
        let root = mm.reserve_frame(platform)?;
        let queue = Queue::new(mm.reserve_frame(platform)?, mm.reserve_frame(platform)?);
        self.unit = Some(Unit {
            capabilities,
            root,
            queue,
        });
        let default = self.create_domain(platform, mm, DomainKind::Passthrough)?;
        self.default_domain = Some(default);
        for &device in devices {
            self.write_context(platform, mm, device, default)?;
            self.devices.entry(device).or_default().domain = Some(default);
        }

        write(platform, reg::FEDATA, 4, u64::from(FAULT_VECTOR));
        write(platform, reg::FEADDR, 4, MESSAGE_ADDRESS);
        write(platform, reg::FEUADDR, 4, 0);
        write(platform, reg::FECTL, 4, 0);

        write(platform, reg::RTADDR, 8, root.base().0);
        command(platform, reg::SET_ROOT_POINTER, "setting the root table")?;

        // The tail before the queue is enabled, as Windows does it.
        write(platform, reg::IQA, 8, queue.base().0);
        write(platform, reg::IQT, 8, 0);
        command(platform, reg::QUEUE_ENABLE, "enabling the queue")?;

        // What was cached under an older root table stays until invalidated
        // (VT-d 11.4.4, SRTP).
        let everything = [Request::all_contexts(), Request::everything()];
        self.submit(platform, &everything)?;
        command(platform, reg::TRANSLATION_ENABLE, "enabling translation")
    }

    pub(super) fn unit(&self) -> Result<&Unit, HalError> {
        self.unit.as_ref().ok_or(HalError::NotInitialised)
    }
}
