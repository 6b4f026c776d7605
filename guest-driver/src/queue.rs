//! The control queue and the cursor queue: many requests outstanding,
//! completed by the DPC or by polling.
//!
//! Every request belongs to a *group*: the frames of one place for a
//! resource, or the one synchronous command of the moment (callers hold the adapter's
//! mutex). A group counts what is outstanding; its event is signaled while
//! that is zero.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU32, Ordering};

use crate::memory::Contiguous;
use crate::nt::{Result, delay_a_millisecond, log};
use crate::resource::PLACES;
use crate::ring::{Buffers, Layout, Ring};
use crate::spec::gpu::{CURSOR_QUEUE, Header, RESP_ERR_FIRST, RESP_OK_NODATA};
use crate::spec::nt::{
    STATUS_DEVICE_HARDWARE_ERROR, STATUS_DEVICE_NOT_READY, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_INVALID_PARAMETER, STATUS_IO_DEVICE_ERROR, STATUS_IO_TIMEOUT,
};
use crate::sync::{Event, SpinLock};

#[cfg(feature = "defects")]
#[path = "defects/queue.rs"]
mod planted;

/// Entries of the control queue at most; the ring then fits a page.
pub const QUEUE_SIZE: u16 = 64;
/// Entries of the cursor queue at most: a cursor command of each scanout.
pub const CURSOR_QUEUE_SIZE: u16 = 16;
/// Request slots at most.
const SLOTS: usize = QUEUE_SIZE as usize / 2;
/// Bytes of a slot's request, and of its response after it.
pub const REQUEST_BYTES: usize = 128;
/// Bytes of a slot's response: the longest is an EDID's.
pub const RESPONSE_BYTES: usize = 1536;
const _: () = assert!(crate::spec::gpu::EDID_RESPONSE_SIZE <= RESPONSE_BYTES);
const SLOT_BYTES: usize = REQUEST_BYTES + RESPONSE_BYTES;
/// Bytes of the control queue's command buffer when it has all entries.
pub const COMMAND_BYTES: usize = SLOTS * SLOT_BYTES;

/// Bytes of a queue's command buffer: all its slots.
pub const fn command_bytes(layout: &Layout) -> usize {
    slots(layout) * SLOT_BYTES
}

/// Request slots of a queue.
const fn slots(layout: &Layout) -> usize {
    if layout.slots() < SLOTS {
        layout.slots()
    } else {
        SLOTS
    }
}

/// The group of synchronous commands; the groups before it are the
/// resources' places.
pub const SYNCHRONOUS: usize = PLACES;
const GROUPS: usize = PLACES + 1;

/// Five seconds, the time after which a device counts as dead (Windows'
/// own timeout for a GPU is two).
const TIMEOUT: i64 = -5 * 10_000_000;
/// Polls of the used index before a polled device counts as slow.
const POLLS: u32 = 1_000_000;
/// Waits for a slow one, of a millisecond each, until it counts as dead.
const POLL_WAITS: u32 = 5_000;

/// What the device reads for a request.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// Copied into the slot; at most [`REQUEST_BYTES`].
    Inline(&'a [u8]),
    /// In a buffer of its own, which stays until completion.
    External {
        /// Device address of the request.
        address: u64,
        /// Its bytes.
        bytes: u32,
    },
}

struct Group {
    outstanding: AtomicU32,
    /// First response type that was an error, since last taken.
    error: AtomicU32,
    idle: Event,
}

/// The ring and what is in flight in it.
struct Flight {
    ring: Ring,
    commands: Contiguous,
    /// Bit `i`: slot `i` is free.
    free: u32,
    /// Slot to group, while in flight.
    groups: [u8; SLOTS],
}

/// A queue. Lives in the adapter's block.
pub struct Queue {
    /// Its number (§5.7.2).
    number: u16,
    flight: SpinLock<Option<Flight>>,
    groups: [Group; GROUPS],
    /// Where the device writes its used index; null while stopped.
    used_index: AtomicPtr<u16>,
    /// What of it was taken, for those who look without the lock.
    last_used: AtomicU16,
    doorbell: AtomicPtr<u16>,
    polled: AtomicBool,
    /// The device broke its protocol or timed out: nothing more is sent.
    broken: AtomicBool,
}

impl Queue {
    /// Queue `number`, not running.
    pub const fn new(number: u16) -> Self {
        Self {
            number,
            flight: SpinLock::new(None),
            groups: [const {
                Group {
                    outstanding: AtomicU32::new(0),
                    error: AtomicU32::new(0),
                    idle: Event::new(),
                }
            }; GROUPS],
            used_index: AtomicPtr::new(ptr::null_mut()),
            last_used: AtomicU16::new(0),
            doorbell: AtomicPtr::new(ptr::null_mut()),
            polled: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    /// To be called once, at the final address.
    pub fn init(&self) {
        for group in &self.groups {
            group.idle.init_notification(true);
        }
    }

    /// Whether it was started.
    pub fn is_running(&self) -> bool {
        !self.used_index.load(Ordering::Acquire).is_null()
    }

    /// Starts over memory that the device was told about.
    #[inline(never)]
    pub fn start(
        &self,
        layout: Layout,
        rings: &Contiguous,
        commands: &Contiguous,
        doorbell: *mut u16,
        polled: bool,
    ) {
        // SAFETY: page-aligned, zeroed, as long as the layout says, and kept
        // until after `shut_down`.
        let mut ring = unsafe { Ring::new(rings.base, layout) };
        if polled {
            ring.suppress_interrupts();
        }
        self.polled.store(polled, Ordering::Relaxed);
        self.broken.store(false, Ordering::Relaxed);
        self.last_used.store(0, Ordering::Relaxed);
        self.doorbell.store(doorbell, Ordering::Relaxed);
        let slots = slots(&layout);
        let used_index = ring.used_index();
        *self.flight.lock() = Some(Flight {
            ring,
            commands: *commands,
            free: u32::MAX >> (SLOTS - slots),
            groups: [0; SLOTS],
        });
        self.used_index.store(used_index, Ordering::Release);
    }

    /// Forgets what was in flight; the device was reset.
    #[inline(never)]
    pub fn shut_down(&self) {
        self.used_index.store(ptr::null_mut(), Ordering::SeqCst);
        self.doorbell.store(ptr::null_mut(), Ordering::SeqCst);
        *self.flight.lock() = None;
        for group in &self.groups {
            group.outstanding.store(0, Ordering::Relaxed);
            group.error.store(0, Ordering::Relaxed);
            group.idle.set();
        }
    }

    /// Queues `bodies` for `group` and rings the doorbell once. Returns
    /// without waiting.
    #[inline(never)]
    pub fn submit<const N: usize>(
        &self,
        group: usize,
        bodies: [Body<'_>; N],
    ) -> Result<[usize; N]> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(STATUS_DEVICE_HARDWARE_ERROR);
        }
        let mut slots = [0; N];
        let notify = {
            let mut flight = self.flight.lock();
            let flight = flight.as_mut().ok_or(STATUS_DEVICE_NOT_READY)?;
            flight.claim(&mut slots)?;
            let counters = &self.groups[group % GROUPS];
            counters.idle.clear();
            counters.outstanding.fetch_add(N as u32, Ordering::Relaxed);
            for (&slot, body) in slots.iter().zip(&bodies) {
                flight.groups[slot] = group as u8;
                let buffers = flight.fill(slot, body);
                flight.ring.offer(slot, &buffers);
            }
            flight.ring.publish();
            flight.ring.wants_notification()
        };
        if notify {
            self.ring_doorbell();
        }
        Ok(slots)
    }

    /// The queue's number, written to its notification address (§4.1.5.2).
    #[inline(never)]
    fn ring_doorbell(&self) {
        let doorbell = self.doorbell.load(Ordering::Relaxed);
        if !doorbell.is_null() {
            // SAFETY: a mapped register; cleared before it is unmapped.
            unsafe { ptr::write_volatile(doorbell, self.number) }
        }
    }

    /// Waits until nothing of `group` is outstanding.
    #[inline(never)]
    pub fn wait(&self, group: usize) -> Result<()> {
        let group = &self.groups[group % GROUPS];
        if group.outstanding.load(Ordering::Acquire) != 0 {
            #[cfg(feature = "defects")]
            let _held = crate::defects::irql::table_lock(crate::defects::Defect::IrqlWait);
            #[cfg(feature = "defects")]
            if crate::defects::is_chosen(crate::defects::Defect::StaleSignal) {
                self.wait_for_signal(group);
                return Ok(());
            }
            if self.polled.load(Ordering::Relaxed) {
                self.poll(group);
            } else if !group.idle.wait(Some(TIMEOUT)) {
                // An interrupt may have been lost; what the ring says counts.
                self.complete();
            }
            if group.outstanding.load(Ordering::Acquire) != 0 {
                self.broken.store(true, Ordering::Relaxed);
                log!("the device did not answer in time");
                return Err(STATUS_IO_TIMEOUT);
            }
        }
        let error = group.error.swap(0, Ordering::Relaxed);
        if error != 0 {
            log!("the device answered 0x%x", error);
            return Err(STATUS_IO_DEVICE_ERROR);
        }
        Ok(())
    }

    /// Takes completions by looking at the used index, without interrupts
    /// and, while the device is not slow, without any call.
    #[inline(never)]
    fn poll(&self, group: &Group) {
        let mut polls = 0;
        while group.outstanding.load(Ordering::Acquire) != 0 {
            while !self.has_completions() {
                polls += 1;
                match polls {
                    ..=POLLS => core::hint::spin_loop(),
                    _ if polls <= POLLS + POLL_WAITS => delay_a_millisecond(),
                    _ => return,
                }
            }
            self.complete();
        }
    }

    /// Whether the used index moved past what was taken; any IRQL.
    pub fn has_completions(&self) -> bool {
        let index = self.used_index.load(Ordering::Acquire);
        // SAFETY: null, or the ring's memory: `shut_down` clears it and
        // `Interrupts::stop` waits for the interrupt routine before the ring
        // is freed.
        !index.is_null()
            && unsafe { ptr::read_volatile(index) } != self.last_used.load(Ordering::Relaxed)
    }

    /// Takes completed requests and signals their groups; at most
    /// DISPATCH_LEVEL.
    #[inline(never)]
    pub fn complete(&self) {
        let mut flight = self.flight.lock();
        let Some(flight) = flight.as_mut() else {
            return;
        };
        // At most one lap: a device that runs ahead of us is broken.
        for _ in 0..QUEUE_SIZE {
            let Some(used) = flight.ring.take_used() else {
                break;
            };
            self.last_used
                .store(flight.ring.last_used(), Ordering::Relaxed);
            let slot = match used {
                Ok(slot) if flight.free & (1 << slot) == 0 => slot,
                _ => {
                    self.broken.store(true, Ordering::Relaxed);
                    continue;
                }
            };
            let group = &self.groups[usize::from(flight.groups[slot]) % GROUPS];
            let kind = flight.response_kind(slot);
            // There are devices that answer cursor commands with nothing but
            // the used element: the slot then holds what `fill` put there.
            let silent = kind == 0 && self.number == CURSOR_QUEUE;
            if !silent && !(RESP_OK_NODATA..RESP_ERR_FIRST).contains(&kind) {
                let _ = group.error.compare_exchange(
                    0,
                    kind.max(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            flight.free |= 1 << slot;
            // Release: whoever sees zero also sees what the device wrote.
            if group.outstanding.fetch_sub(1, Ordering::Release) == 1 {
                #[cfg(feature = "defects")]
                if self.leaves_signal() {
                    continue;
                }
                group.idle.set();
            }
        }
    }

    /// Sends one command and waits for its answer; the caller holds the
    /// adapter's mutex. The slot's response stays readable until the next
    /// submission.
    #[inline(never)]
    pub fn execute(&self, body: Body<'_>) -> Result<usize> {
        let [slot] = self.submit(SYNCHRONOUS, [body])?;
        self.wait(SYNCHRONOUS)?;
        Ok(slot)
    }

    /// Copies the start of `slot`'s response; see [`execute`](Self::execute).
    pub fn response(&self, slot: usize, bytes: &mut [u8]) -> Result<()> {
        if slot >= SLOTS || bytes.len() > RESPONSE_BYTES {
            return Err(STATUS_INVALID_PARAMETER);
        }
        let flight = self.flight.lock();
        let flight = flight.as_ref().ok_or(STATUS_DEVICE_NOT_READY)?;
        // SAFETY: within the slot's response.
        unsafe {
            ptr::copy_nonoverlapping(
                flight.slot(slot).add(REQUEST_BYTES),
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
        Ok(())
    }

    /// Waits until nothing at all is outstanding.
    #[inline(never)]
    pub fn wait_idle(&self) -> Result<()> {
        let mut result = Ok(());
        for group in 0..GROUPS {
            if let Err(STATUS_IO_TIMEOUT) = self.wait(group) {
                result = Err(STATUS_IO_TIMEOUT);
            }
        }
        result
    }
}

impl Flight {
    /// Takes a free slot for each place, or none at all.
    fn claim(&mut self, slots: &mut [usize]) -> Result<()> {
        if (self.free.count_ones() as usize) < slots.len() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        for slot in slots {
            *slot = self.free.trailing_zeros() as usize % SLOTS;
            self.free &= !(1 << *slot);
        }
        Ok(())
    }

    /// Kernel address of a slot.
    fn slot(&self, slot: usize) -> *mut u8 {
        self.commands.base.wrapping_add(slot % SLOTS * SLOT_BYTES)
    }

    /// Writes a request into its slot and clears its response.
    fn fill(&mut self, slot: usize, body: &Body<'_>) -> Buffers {
        let base = self.slot(slot);
        let address = self.commands.device_address + (slot % SLOTS * SLOT_BYTES) as u64;
        // SAFETY: within the slot, which is not in flight.
        unsafe { ptr::write_bytes(base.add(REQUEST_BYTES), 0, size_of::<Header>()) };
        let (request, request_bytes) = match *body {
            Body::Inline(bytes) => {
                let bytes = &bytes[..bytes.len().min(REQUEST_BYTES)];
                // SAFETY: at most the slot's request.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), base, bytes.len()) };
                (address, bytes.len() as u32)
            }
            Body::External { address, bytes } => (address, bytes),
        };
        Buffers {
            request,
            request_bytes,
            response: address + REQUEST_BYTES as u64,
            response_bytes: RESPONSE_BYTES as u32,
        }
    }

    fn response_kind(&self, slot: usize) -> u32 {
        // SAFETY: the response's first field.
        unsafe { ptr::read_volatile(self.slot(slot).add(REQUEST_BYTES).cast()) }
    }
}
