//! Fault records, and the events of the unit itself (VT-d 7.2, 7.3, 6.5.6).

use super::walk::Refusal;
use super::{Vtd, injected};
use crate::bus::Message;
use crate::fault::Fault;
use crate::spec::registers as reg;
use crate::tell;
use crate::translate::{Env, Request};
use journal::event::Event;
use memory::RequesterId;
use scenario::What;

/// Under which requester the unit's own messages stand in the journal: it has
/// none of its own and sits in the host bridge.
const UNIT: RequesterId = RequesterId::new(0, 0, 0);

const fn record_offset(index: u8) -> u16 {
    reg::FRCD + 16 * index as u16
}

impl Vtd {
    /// Refuse an access: into a record if there is room, and into the journal
    /// always.
    #[cold]
    pub(super) fn refuse(&mut self, env: Env<'_>, request: &Request, refusal: Refusal) -> Fault {
        let fault = Fault {
            device: request.device,
            context: request.context,
            iova: request.iova,
            write: request.write,
            reason: refusal.reason,
        };
        let recorded = !refusal.silent && self.record(env, &fault);
        tell::refused(env, &fault, recorded);
        fault
    }

    /// Primary fault logging (7.2.1): false if there was no room. Faults of
    /// one requester are not merged, although hardware may.
    fn record(&mut self, env: Env<'_>, fault: &Fault) -> bool {
        let status = self.registers.get(reg::FSTS);
        if status & reg::FAULT_OVERFLOW != 0 {
            return false;
        }
        let at = record_offset(self.next_record);
        let outcome = injected::record(env, fault);
        if outcome == Some(What::Overflow) || self.registers.get64(at + 8) & reg::RECORD_FAULT != 0
        {
            self.registers.set_bits(reg::FSTS, reg::FAULT_OVERFLOW);
            return false;
        }
        let direction = if fault.write { 0 } else { reg::RECORD_READ };
        let high = reg::RECORD_FAULT
            | direction
            | u64::from(fault.reason.code()) << reg::RECORD_REASON
            | u64::from(fault.device.0);
        self.registers.set64(at, fault.iova.page_base().0);
        self.registers.set64(at + 8, high);
        if status & reg::FAULT_PENDING == 0 {
            let index = u32::from(self.next_record) << reg::FAULT_INDEX;
            let status = status & !(0xff << reg::FAULT_INDEX);
            self.registers
                .set(reg::FSTS, status | reg::FAULT_PENDING | index);
            // No new interrupt condition if any status was set before
            // (11.4.7.2, IP).
            if status & reg::FAULT_STATUS == 0 && outcome != Some(What::InterruptLost) {
                self.raise(env, reg::FECTL);
            }
        }
        self.next_record = (self.next_record + 1) % reg::FAULT_RECORDS as u8;
        true
    }

    /// The queue stopped (6.5.2.11): say why.
    pub(super) fn queue_failed(&mut self, env: Env<'_>, why: u64) {
        let status = self.registers.get(reg::FSTS);
        self.registers.set_bits(reg::FSTS, reg::QUEUE_ERROR);
        self.registers.set64(reg::IQERCD, why);
        if status & reg::FAULT_STATUS == 0 {
            self.raise(env, reg::FECTL);
        }
    }

    /// A wait descriptor with IF completed.
    pub(super) fn wait_completed(&mut self, env: Env<'_>) {
        if self.registers.get(reg::ICS) & reg::WAIT_COMPLETE == 0 {
            self.registers.set_bits(reg::ICS, reg::WAIT_COMPLETE);
            self.raise(env, reg::IECTL);
        }
    }

    /// Software cleared status or records: PPF follows the records, and a
    /// held-back message goes when nothing is left to say (11.4.7.2).
    pub(super) fn settle_fault_event(&mut self) {
        let pending = (0..reg::FAULT_RECORDS as u8)
            .any(|i| self.registers.get64(record_offset(i) + 8) & reg::RECORD_FAULT != 0);
        if !pending {
            self.registers.clear_bits(reg::FSTS, reg::FAULT_PENDING);
        }
        if self.registers.get(reg::FSTS) & reg::FAULT_STATUS == 0 {
            self.registers.clear_bits(reg::FECTL, reg::EVENT_PENDING);
        }
    }

    /// Software cleared ICS.
    pub(super) fn settle_wait_event(&mut self) {
        if self.registers.get(reg::ICS) & reg::WAIT_COMPLETE == 0 {
            self.registers.clear_bits(reg::IECTL, reg::EVENT_PENDING);
        }
    }

    /// An interrupt condition of the event whose control register is at
    /// `control`: a message now, or when the mask is cleared.
    fn raise(&mut self, env: Env<'_>, control: u16) {
        self.registers.set_bits(control, reg::EVENT_PENDING);
        self.release_event(env, control);
    }

    /// Send a pending message unless it is masked.
    pub(super) fn release_event(&mut self, env: Env<'_>, control: u16) {
        let state = self.registers.get(control);
        if state & reg::EVENT_PENDING == 0 || state & reg::EVENT_MASK != 0 {
            return;
        }
        self.registers.clear_bits(control, reg::EVENT_PENDING);
        // Data, address and upper address follow the control register, for
        // either event.
        let data = self.registers.get(control + 4);
        let address = self.registers.get64(control + 8);
        self.outbox.push(Message {
            device: None,
            address,
            data,
        });
        env.journal().emit(Event::Message {
            device: UNIT,
            address,
            data,
            refused: None,
        });
    }
}
