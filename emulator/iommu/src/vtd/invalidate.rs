//! What invalidations drop (VT-d 6.5), however they were asked for.

use super::Vtd;
use crate::bus::Bus;
use crate::spec::registers as reg;
use crate::translate::Env;
use journal::event::{Event, Scope};
use memory::{Iova, PAGE_SIZE, RequesterId};

/// Bits of the devfn that a function mask leaves to compare (6.5.1.1).
const FUNCTION_MASKS: [u16; 4] = [0xffff, 0xfffb, 0xfff9, 0xfff8];

/// What a context-cache invalidation covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContextTarget {
    /// 1 global, 2 domain, 3 device.
    pub granularity: u64,
    pub domain: u16,
    pub source: RequesterId,
    /// 0–3.
    pub function_mask: u64,
}

/// What an IOTLB invalidation covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct IotlbTarget {
    /// 1 global, 2 domain, 3 pages.
    pub granularity: u64,
    pub domain: u16,
    pub address: Iova,
    /// log2 of the pages.
    pub mask: u8,
    pub drain_reads: bool,
    pub drain_writes: bool,
}

impl Vtd {
    /// Drop context entries; false if the granularity is reserved. The IOTLB
    /// keeps what it has: software must invalidate it itself (6.5.1.1).
    pub(super) fn invalidate_contexts(&mut self, env: Env<'_>, target: ContextTarget) -> bool {
        let ContextTarget {
            domain,
            source,
            function_mask,
            ..
        } = target;
        let compared = FUNCTION_MASKS[(function_mask & 3) as usize];
        let (scope, dropped) = match target.granularity {
            1 => (Scope::ContextGlobal, self.contexts.drop_where(|_, _| true)),
            2 => (
                Scope::ContextDomain(domain),
                self.contexts.drop_where(|_, c| c.domain == domain),
            ),
            3 => (
                Scope::ContextDevice(domain, source),
                self.contexts.drop_where(|device, c| {
                    c.domain == domain && (device.0 ^ source.0) & compared == 0
                }),
            ),
            _ => return false,
        };
        env.journal().emit(Event::Invalidate {
            scope,
            drain_reads: false,
            drain_writes: false,
            dropped,
        });
        true
    }

    /// Drop IOTLB entries and land what is in flight, if asked for; false if
    /// the granularity is reserved or the address mask is beyond CAP.MAMV.
    pub(super) fn invalidate_iotlb(
        &mut self,
        env: Env<'_>,
        bus: &Bus,
        target: IotlbTarget,
    ) -> bool {
        let domain = target.domain;
        let (scope, dropped) = match target.granularity {
            1 => (Scope::Global, self.iotlb.drop_all()),
            2 => (Scope::Domain(domain), self.iotlb.drop_domain(domain)),
            3 if target.mask <= reg::MAX_ADDRESS_MASK => {
                let count = 1 << target.mask;
                let length = count * PAGE_SIZE;
                // The low bits that the mask covers are ignored.
                let iova = Iova(target.address.0 & !(length - 1));
                let scope = Scope::Pages {
                    domain,
                    iova,
                    count,
                };
                (scope, self.iotlb.drop_range(domain, iova, length))
            }
            _ => return false,
        };
        bus.in_flight
            .borrow_mut()
            .drain(env, target.drain_reads, target.drain_writes);
        env.journal().emit(Event::Invalidate {
            scope,
            drain_reads: target.drain_reads,
            drain_writes: target.drain_writes,
            dropped,
        });
        true
    }

    /// CCMD.ICC was set (11.4.6). With the queue enabled, registers must not
    /// be used: nothing is done, and CAIG says so with 0.
    pub(super) fn context_command(&mut self, env: Env<'_>) {
        let value = self.registers.get64(reg::CCMD);
        let target = ContextTarget {
            granularity: (value >> reg::CCMD_REQUESTED) & 0b11,
            domain: value as u16,
            source: RequesterId((value >> 16) as u16),
            function_mask: (value >> 32) & 0b11,
        };
        let done = !self.queue_enabled() && self.invalidate_contexts(env, target);
        let actual = if done { target.granularity } else { 0 };
        let kept = value & !(reg::CCMD_INVALIDATE | 0b11 << reg::CCMD_ACTUAL);
        self.registers
            .set64(reg::CCMD, kept | actual << reg::CCMD_ACTUAL);
    }

    /// IOTLB.IVT was set (11.4.6.3); as for CCMD, not with the queue enabled.
    pub(super) fn iotlb_command(&mut self, env: Env<'_>, bus: &Bus) {
        let value = self.registers.get64(reg::IOTLB);
        let address = self.registers.get64(reg::IVA);
        let target = IotlbTarget {
            granularity: (value >> reg::IOTLB_REQUESTED) & 0b11,
            domain: (value >> reg::IOTLB_DOMAIN) as u16,
            address: Iova(address & !(PAGE_SIZE - 1)),
            mask: (address & 0x3f) as u8,
            drain_reads: value & reg::IOTLB_DRAIN_READS != 0,
            drain_writes: value & reg::IOTLB_DRAIN_WRITES != 0,
        };
        let done = !self.queue_enabled() && self.invalidate_iotlb(env, bus, target);
        let actual = if done { target.granularity } else { 0 };
        let kept = value & !(reg::IOTLB_INVALIDATE | 0b11 << reg::IOTLB_ACTUAL);
        self.registers
            .set64(reg::IOTLB, kept | actual << reg::IOTLB_ACTUAL);
    }
}
