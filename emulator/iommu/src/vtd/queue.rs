//! Queued invalidation (VT-d 6.5.2).

use super::invalidate::{ContextTarget, IotlbTarget};
use super::{Vtd, injected};
use crate::bus::Bus;
use crate::spec::descriptors as spec;
use crate::spec::registers::{self as reg, queue_error};
use crate::translate::{Env, is_interrupt_address};
use journal::event::Event;
use memory::{Gpa, Iova, RequesterId};
use scenario::What;

impl Vtd {
    #[inline]
    pub(super) fn queue_enabled(&self) -> bool {
        self.registers.get(reg::GSTS) & reg::QUEUE_ENABLE != 0
    }

    /// Do the descriptors from head to tail. Stops at the first error, with
    /// the head on it, until software clears FSTS.IQE.
    pub(super) fn run_queue(&mut self, env: Env<'_>, bus: &Bus) {
        if !self.queue_enabled() {
            return;
        }
        self.catch_up(env, bus);
        // Somebody holds a view of memory: an invalidation that drains is not
        // done before that access is, so the queue waits.
        if bus.views.get() != 0 {
            bus.deferred.set(true);
            return;
        }
        let stopped = self.registers.get(reg::FSTS) & reg::QUEUE_ERROR != 0;
        if stopped {
            return;
        }
        let address = self.registers.get64(reg::IQA);
        if address & reg::QUEUE_WIDE != 0 {
            return self.queue_failed(env, queue_error::WIDTH);
        }
        let base = address & crate::spec::tables::ADDRESS;
        let size = memory::PAGE_SIZE << (address & reg::QUEUE_SIZE);
        let tail = self.registers.get64(reg::IQT);
        if tail >= size {
            return self.queue_failed(env, queue_error::TAIL);
        }
        // IQA may have shrunk under a head that software cannot write.
        let mut head = self.registers.get64(reg::IQH) & (size - 1);
        // The tail does not move meanwhile: at most one round of the queue.
        while head != tail {
            let result = self.step(env, bus, Gpa(base + head));
            if let Err(why) = result {
                self.registers.set64(reg::IQH, head);
                return self.queue_failed(env, why);
            }
            head = (head + spec::SIZE) & (size - 1);
        }
        self.registers.set64(reg::IQH, head);
    }

    /// One descriptor; the error is an IQERCD code.
    fn step(&mut self, env: Env<'_>, bus: &Bus, at: Gpa) -> Result<(), u64> {
        let fetch = |at| env.memory.read_u64(at).map_err(|_| queue_error::FETCH);
        let (low, high) = (fetch(at)?, fetch(Gpa(at.0 + 8))?);
        env.journal().emit(Event::Descriptor { words: [low, high] });
        let kind = spec::kind(low);
        let [reserved_low, reserved_high] = spec::reserved(kind).ok_or(queue_error::TYPE)?;
        if low & reserved_low != 0 || high & reserved_high != 0 {
            return Err(queue_error::RESERVED);
        }
        let injection = injected::descriptor(env, low, high);
        let known = match injection.map(|injection| (injection.outcome, injection.ns)) {
            Some((What::Drop, _)) => true,
            Some((What::Delay, ns)) if self.put_off(env, [low, high], ns) => true,
            other => self.obey(env, bus, [low, high], other.map(|(outcome, _)| outcome)),
        };
        known.then_some(()).ok_or(queue_error::RESERVED)
    }

    /// Do what a descriptor says, or what a scenario makes of it; false if it
    /// has a value that is reserved.
    pub(super) fn obey(
        &mut self,
        env: Env<'_>,
        bus: &Bus,
        [low, high]: [u64; 2],
        outcome: Option<What>,
    ) -> bool {
        let granularity = (low >> spec::GRANULARITY) & 0b11;
        let domain = (low >> spec::DOMAIN) as u16;
        match spec::kind(low) {
            spec::CONTEXT => self.invalidate_contexts(
                env,
                ContextTarget {
                    granularity,
                    domain,
                    source: RequesterId((low >> spec::CONTEXT_SOURCE) as u16),
                    function_mask: (low >> spec::CONTEXT_FUNCTION_MASK) & 0b11,
                },
            ),
            spec::IOTLB => self.invalidate_iotlb(
                env,
                bus,
                injected::bend(
                    IotlbTarget {
                        granularity,
                        domain,
                        address: Iova(high & !(memory::PAGE_SIZE - 1)),
                        mask: (high & spec::IOTLB_ADDRESS_MASK) as u8,
                        drain_reads: low & spec::IOTLB_DRAIN_READS != 0,
                        drain_writes: low & spec::IOTLB_DRAIN_WRITES != 0,
                    },
                    outcome,
                ),
            ),
            spec::WAIT => {
                self.wait(env, low, Gpa(high));
                true
            }
            // Nothing is cached for interrupts (ECAP.IR is clear); an OS may
            // flush all the same.
            _ => true,
        }
    }

    /// A wait descriptor: all before it is done, for the queue is done in
    /// order and at once.
    fn wait(&mut self, env: Env<'_>, low: u64, status: Gpa) {
        if low & spec::WAIT_STATUS != 0 {
            let value = (low >> spec::WAIT_DATA) as u32;
            // The write goes out untranslated; where there is no RAM it is
            // lost, as on the bus.
            let written =
                !is_interrupt_address(status.0) && env.memory.write_u32(status, value).is_ok();
            if written {
                env.journal().emit(Event::WaitDone {
                    address: status,
                    value,
                });
            }
        }
        if low & spec::WAIT_INTERRUPT != 0 {
            self.wait_completed(env);
        }
    }
}
