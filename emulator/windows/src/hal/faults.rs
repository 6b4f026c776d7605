//! The fault interrupt of the remapping unit (VT-d 7.3).

use super::State;
use super::spec::capability;
use super::unit::{read, write};
use crate::call::Stop;
use crate::platform::Platform;
use crate::rules::hal::DMA_VIOLATION;
use iommu::spec::registers as reg;
use memory::RequesterId;

/// One fault record.
struct Fault {
    device: RequesterId,
    address: u64,
    write: bool,
    reason: u64,
}

impl State {
    /// Serve the fault interrupt: take every record, clear them and the
    /// overflow, and stop Windows if there was a fault. The oldest one is
    /// told; the others are in the journal.
    ///
    /// The stop is DRIVER_VERIFIER_DMA_VIOLATION 0x26, which Windows raises
    /// without Driver Verifier too. Its page documents the parameters; that
    /// the fourth is the unit's own fault reason is inferred from a public
    /// crash, whose second parameter was 0 as here.
    pub fn fault_interrupt(&mut self, platform: &mut dyn Platform) -> Option<Stop> {
        let capabilities = self.unit.as_ref()?.capabilities;
        let base = ((capabilities >> capability::FAULT_OFFSET) & 0x3ff) * 16;
        let count = ((capabilities >> capability::FAULT_RECORDS) & 0xff) + 1;
        let status = read(platform, reg::FSTS, 4) as u32;
        let first = u64::from(status >> reg::FAULT_INDEX & 0xff);
        let mut faults = Vec::new();
        for step in 0..count {
            let record = (base + 16 * ((first + step) % count)) as u16;
            let high = read(platform, record + 8, 8);
            if high & reg::RECORD_FAULT == 0 {
                continue;
            }
            faults.push(Fault {
                device: RequesterId(high as u16),
                address: read(platform, record, 8),
                write: high & reg::RECORD_READ == 0,
                reason: (high >> reg::RECORD_REASON) & 0xff,
            });
            write(platform, record + 8, 8, reg::RECORD_FAULT);
        }
        let lost = status & reg::FAULT_OVERFLOW != 0;
        if lost {
            write(platform, reg::FSTS, 4, u64::from(reg::FAULT_OVERFLOW));
        }
        stop(&faults, lost)
    }
}

fn stop(faults: &[Fault], lost: bool) -> Option<Stop> {
    let fault = faults.first()?;
    let more = match faults.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let lost = if lost { "; further ones were lost" } else { "" };
    let what = format!(
        "DRIVER_VERIFIER_DMA_VIOLATION: the IOMMU refused device {} a {} at {:#x}, \
         fault reason {}{more}{lost}",
        fault.device,
        if fault.write { "write" } else { "read" },
        fault.address,
        fault.reason,
    );
    let stop = DMA_VIOLATION.stop(&[fault.address, fault.reason], what);
    Some(stop.or_return(0u64))
}
