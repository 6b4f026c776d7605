//! The VT-d remapping unit in legacy mode.

mod contexts;
mod faults;
mod injected;
mod invalidate;
mod iotlb;
mod queue;
mod registers;
#[cfg(test)]
mod tests;
mod walk;

use crate::bus::{Bus, Message};
use crate::fault::{Fault, FaultReason};
use crate::spec::registers as reg;
use crate::translate::{Env, Request, Translate, Translation, is_interrupt_address};
use contexts::{Context, Contexts};
use iotlb::Iotlb;
use journal::event::Event;
use memory::{Gpa, RequesterId};
use registers::{Registers, Written};
use walk::Refusal;

/// All that changes in a remapping unit.
#[derive(Debug)]
pub(crate) struct Vtd {
    registers: Registers,
    /// The root table that SRTP latched: RTADDR itself means nothing (11.4.5).
    root: u64,
    contexts: Contexts,
    iotlb: Iotlb,
    /// Fills of the IOTLB so far: the generation of the latest.
    fills: u32,
    /// The fault record that is used next.
    next_record: u8,
    /// Interrupts raised and not yet on the bus.
    outbox: Vec<Message>,
    /// Descriptors that a scenario delays, each with its virtual time.
    late: Vec<(u64, [u64; 2])>,
}

/// A [`Vtd`] as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VtdState {
    registers: Registers,
    root: u64,
    contexts: Contexts,
    iotlb: iotlb::State,
    fills: u32,
    next_record: u8,
    late: Vec<(u64, [u64; 2])>,
}

impl Default for Vtd {
    fn default() -> Self {
        Self {
            registers: Registers::reset(),
            root: 0,
            contexts: Contexts::default(),
            iotlb: Iotlb::default(),
            fills: 0,
            next_record: 0,
            outbox: Vec::new(),
            late: Vec::new(),
        }
    }
}

/// Nothing was remapped.
const fn identity(request: &Request) -> Translation {
    Translation {
        gpa: Gpa(request.iova.0),
        generation: 0,
        cached: false,
    }
}

impl Vtd {
    pub fn save(&self) -> VtdState {
        // Between two calls the outbox is empty.
        VtdState {
            registers: self.registers.clone(),
            root: self.root,
            contexts: self.contexts.clone(),
            iotlb: self.iotlb.save(),
            fills: self.fills,
            next_record: self.next_record,
            late: self.late.clone(),
        }
    }

    pub fn restore(&mut self, state: &VtdState) {
        self.registers.clone_from(&state.registers);
        self.root = state.root;
        self.contexts.clone_from(&state.contexts);
        self.iotlb.restore(&state.iotlb);
        self.fills = state.fills;
        self.next_record = state.next_record;
        self.late.clone_from(&state.late);
        self.outbox.clear();
    }

    pub fn mmio_read(&self, offset: u64, size: u8) -> u64 {
        self.registers.read(offset, size)
    }

    /// Write a register and do what the write asks for. Sizes other than 4
    /// and 8 and unaligned writes are undefined (11.2): nothing happens.
    pub fn mmio_write(&mut self, env: Env<'_>, bus: &Bus, offset: u64, size: u8, value: u64) {
        let aligned = matches!(size, 4 | 8) && offset.is_multiple_of(u64::from(size));
        let Ok(offset) = u16::try_from(offset) else {
            return;
        };
        if !aligned || u64::from(offset) >= crate::REGISTER_SIZE {
            return;
        }
        env.journal().emit(Event::RegisterWrite {
            offset,
            size,
            value,
        });
        if size == 4 || Registers::is_wide(offset) {
            self.write(env, bus, offset, size, value);
        } else {
            self.write(env, bus, offset, 4, value & 0xffff_ffff);
            self.write(env, bus, offset + 4, 4, value >> 32);
        }
        for message in self.outbox.drain(..) {
            bus.send(message);
        }
    }

    fn write(&mut self, env: Env<'_>, bus: &Bus, offset: u16, size: u8, value: u64) {
        let queue_error = self.registers.get(reg::FSTS) & reg::QUEUE_ERROR;
        let Some(written) = self.registers.write(offset, size, value) else {
            return;
        };
        // A command bit acts when the half that holds it is written.
        let commanded = |bit: u64| written.covered & written.value & bit != 0;
        match written.offset {
            reg::GCMD => self.command(env, bus, written),
            reg::CCMD if commanded(reg::CCMD_INVALIDATE) => self.context_command(env),
            reg::IOTLB if commanded(reg::IOTLB_INVALIDATE) => self.iotlb_command(env, bus),
            reg::IQT => self.run_queue(env, bus),
            reg::FSTS => {
                self.settle_fault_event();
                if queue_error != 0 && self.registers.get(reg::FSTS) & reg::QUEUE_ERROR == 0 {
                    self.registers.set64(reg::IQERCD, 0);
                    self.run_queue(env, bus);
                }
            }
            offset if offset >= reg::FRCD => self.settle_fault_event(),
            reg::FECTL => self.release_event(env, reg::FECTL),
            reg::ICS => self.settle_wait_event(),
            reg::IECTL => self.release_event(env, reg::IECTL),
            _ => {}
        }
    }

    /// GCMD (11.4.4.1): every write carries the whole state to be, and one-shot
    /// commands. Interrupt remapping, advanced faults and write-buffer flushes
    /// are not there (ECAP.IR, CAP.AFL, CAP.RWBF): their bits do nothing.
    fn command(&mut self, env: Env<'_>, bus: &Bus, written: Written) {
        let value = written.value as u32;
        let old = self.registers.get(reg::GSTS);
        if value & reg::SET_ROOT_POINTER != 0 {
            self.root = self.registers.get64(reg::RTADDR) & crate::spec::tables::ADDRESS;
            self.registers.set_bits(reg::GSTS, reg::SET_ROOT_POINTER);
        }
        let changed = |bit| (old ^ value) & bit != 0;
        if changed(reg::QUEUE_ENABLE) {
            if value & reg::QUEUE_ENABLE == 0 {
                self.registers.clear_bits(reg::GSTS, reg::QUEUE_ENABLE);
                // The head goes back with the queue (11.4.9); the tail is
                // software's.
                self.registers.set64(reg::IQH, 0);
            } else {
                self.registers.set_bits(reg::GSTS, reg::QUEUE_ENABLE);
                // Windows sets the tail before it enables the queue.
                self.run_queue(env, bus);
            }
        }
        if changed(reg::TRANSLATION_ENABLE) {
            // What was processed so far is drained before the status changes
            // (11.4.4.1).
            bus.in_flight.borrow_mut().drain(env, true, true);
            if value & reg::TRANSLATION_ENABLE == 0 {
                self.registers
                    .clear_bits(reg::GSTS, reg::TRANSLATION_ENABLE);
            } else {
                self.registers.set_bits(reg::GSTS, reg::TRANSLATION_ENABLE);
            }
        }
    }

    #[inline]
    fn enabled(&self) -> bool {
        self.registers.get(reg::GSTS) & reg::TRANSLATION_ENABLE != 0
    }

    /// Translate without help of the IOTLB.
    #[inline(never)]
    fn fill(&mut self, env: Env<'_>, request: &Request) -> Result<Translation, Refusal> {
        let context = self.context(env, request.device)?;
        let loud = |reason| Refusal {
            reason,
            silent: context.silent,
        };
        if !within(&context, request) {
            return Err(loud(FaultReason::AddressBeyond));
        }
        if context.pass_through {
            return Ok(identity(request));
        }
        // The context may have been fetched just now, and so seen by neither
        // lookup before; the IOTLB still has what it has of its domain.
        if let Some(found) = self.cached(&context, request) {
            return Ok(found);
        }
        let leaf = walk::leaf(
            env.memory,
            &context,
            request.iova,
            request.length,
            request.write,
            |value| injected::entry(env, request, value),
        )
        .map_err(loud)?;
        let offset = (1 << leaf.shift) - 1;
        let gpa = Gpa(leaf.page.0 | (request.iova.0 & offset));
        if is_interrupt_address(gpa.0) {
            return Err(loud(FaultReason::InterruptRange));
        }
        self.fills = self.fills.wrapping_add(1).max(1);
        let generation = self.fills;
        if self.may_cache(env, request, context.domain, leaf.shift) {
            self.iotlb.insert(
                context.domain,
                request.iova,
                leaf.shift,
                leaf.page,
                (leaf.read, leaf.write),
                generation,
            );
        }
        if env.journal().is_enabled() {
            env.journal().emit(Event::Fill {
                domain: context.domain,
                iova: memory::Iova(request.iova.0 & !offset),
                page: leaf.page,
                size: 1 << leaf.shift,
                entry: leaf.entry,
                value: leaf.value,
                generation,
            });
        }
        Ok(Translation {
            gpa,
            generation,
            cached: false,
        })
    }

    /// The context of a device, from the cache or from the tables; only what
    /// is present and valid is cached (CAP.CM is clear).
    fn context(&mut self, env: Env<'_>, device: RequesterId) -> Result<Context, Refusal> {
        if let Some(context) = self.contexts.find(device) {
            return Ok(*context);
        }
        let context = walk::context(env.memory, self.root, device)?;
        self.contexts.insert(device, context);
        Ok(context)
    }

    /// What the IOTLB says of a 4 KiB page, if anything: nearly every access
    /// ends here. Small pages are never cached in the interrupt range, nor
    /// for pass-through.
    #[inline]
    pub fn hit(&self, request: &Request) -> Option<Translation> {
        if !self.enabled() {
            return None;
        }
        let context = self.contexts.find(request.device)?;
        if !within(context, request) || context.pass_through {
            return None;
        }
        self.iotlb
            .find_small(context.domain, request.iova, request.write)
            .map(from_cache)
    }

    /// What the IOTLB says of a large page, if anything.
    fn large_hit(&self, request: &Request) -> Option<Translation> {
        let context = self.contexts.find(request.device)?;
        if !within(context, request) || context.pass_through {
            return None;
        }
        self.large(context.domain, request)
    }

    #[inline]
    fn large(&self, domain: u16, request: &Request) -> Option<Translation> {
        self.iotlb
            .find_large(domain, request.iova, request.write)
            .map(from_cache)
            // A large page may lead into the interrupt range; the walk says so.
            .filter(|found| !is_interrupt_address(found.gpa.0))
    }

    /// What the IOTLB says of a page of any size, in a context that need not
    /// be cached: entries are tagged with the domain, not with the device
    /// (6.2.1), and dropping a context leaves them (6.5.1.1).
    fn cached(&self, context: &Context, request: &Request) -> Option<Translation> {
        self.iotlb
            .find_small(context.domain, request.iova, request.write)
            .map(from_cache)
            .or_else(|| self.large(context.domain, request))
    }

    /// Why an access to the interrupt range that is no interrupt request is
    /// refused. As with every fault past the context entry (LGN.4 of the table
    /// in 7.1.3), the device must have one, and its FPD counts.
    fn interrupt_range(&mut self, env: Env<'_>, request: &Request) -> Refusal {
        let refusal = |silent| Refusal {
            reason: FaultReason::InterruptRange,
            silent,
        };
        if !self.enabled() {
            return refusal(true);
        }
        match self.context(env, request.device) {
            Ok(context) => refusal(context.silent),
            Err(earlier) => earlier,
        }
    }

    /// Translate what [`Vtd::hit`] does not know.
    #[inline(never)]
    fn miss(&mut self, env: Env<'_>, request: &Request) -> Result<Translation, Fault> {
        if is_interrupt_address(request.iova.0) {
            let refusal = self.interrupt_range(env, request);
            return Err(self.refuse(env, request, refusal));
        }
        if !self.enabled() {
            return Ok(identity(request));
        }
        if let Some(found) = self.large_hit(request) {
            return Ok(found);
        }
        self.fill(env, request)
            .map_err(|refusal| self.refuse(env, request, refusal))
    }
}

fn from_cache(hit: iotlb::Hit) -> Translation {
    Translation {
        gpa: hit.gpa,
        generation: hit.generation,
        cached: true,
    }
}

/// Is the address within what the domain and the hardware translate?
#[inline]
fn within(context: &Context, request: &Request) -> bool {
    request.iova.0 >> context.bits == 0
}

impl Translate for Vtd {
    #[inline]
    fn translate(&mut self, env: Env<'_>, request: Request) -> Result<Translation, Fault> {
        match self.hit(&request) {
            Some(found) => Ok(found),
            None => self.miss(env, &request),
        }
    }

    fn peek(&self, env: Env<'_>, request: Request) -> Option<Gpa> {
        if is_interrupt_address(request.iova.0) {
            return None;
        }
        if !self.enabled() {
            return Some(Gpa(request.iova.0));
        }
        if let Some(found) = self.hit(&request).or_else(|| self.large_hit(&request)) {
            return Some(found.gpa);
        }
        let context = match self.contexts.find(request.device) {
            Some(context) => *context,
            None => walk::context(env.memory, self.root, request.device).ok()?,
        };
        if !within(&context, &request) {
            return None;
        }
        if context.pass_through {
            return Some(Gpa(request.iova.0));
        }
        if let Some(found) = self.cached(&context, &request) {
            return Some(found.gpa);
        }
        let (iova, length, write) = (request.iova, request.length, request.write);
        let leaf = walk::leaf(env.memory, &context, iova, length, write, |value| value).ok()?;
        let gpa = leaf.page.0 | (iova.0 & ((1 << leaf.shift) - 1));
        (!is_interrupt_address(gpa)).then_some(Gpa(gpa))
    }

    fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.outbox)
    }

    fn accesses_done(&mut self, env: Env<'_>, bus: &Bus) {
        self.run_queue(env, bus);
        for message in self.outbox.drain(..) {
            bus.send(message);
        }
    }
}
