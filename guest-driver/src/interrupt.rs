//! Interrupts: the routine at DIRQL, the DPC, and their end.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use crate::callbacks::Callbacks;
use crate::pci::Assigned;
use crate::queue::Queue;
use crate::spec::dxgk::QueueDpc;
use crate::spec::gpu::{CONFIG_EVENTS_CLEAR, CONFIG_EVENTS_READ};
use crate::spec::virtio::{ISR_CONFIG, ISR_QUEUE};
use crate::virtio::Transport;

/// Which message means what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vectors {
    /// Vector of configuration changes.
    pub config: Option<u16>,
    /// Vector of both queues.
    pub queue: Option<u16>,
}

impl Vectors {
    /// Message 0 for configuration changes and 1 for the queues; 0 for all
    /// when there is one; none with a line interrupt.
    pub fn new(assigned: &Assigned) -> Self {
        match assigned.messages {
            0 => Self::default(),
            1 => Self {
                config: Some(0),
                queue: Some(0),
            },
            _ => Self {
                config: Some(0),
                queue: Some(1),
            },
        }
    }
}

/// What the interrupt routine needs, readable at DIRQL without a lock.
pub struct Interrupts {
    ready: AtomicBool,
    /// Routines and DPCs running now.
    running: AtomicU32,
    device_handle: AtomicPtr<c_void>,
    queue_dpc: AtomicPtr<c_void>,
    /// Interrupt status register for a line interrupt; null with messages.
    isr: AtomicPtr<u8>,
    /// Message that configuration changes use.
    config_message: AtomicU32,
    /// Device configuration: events pending.
    events: AtomicPtr<u32>,
    config_changed: AtomicBool,
}

impl Interrupts {
    /// Interrupts that are not ours yet.
    pub const fn new() -> Self {
        Self {
            ready: AtomicBool::new(false),
            running: AtomicU32::new(0),
            device_handle: AtomicPtr::new(ptr::null_mut()),
            queue_dpc: AtomicPtr::new(ptr::null_mut()),
            isr: AtomicPtr::new(ptr::null_mut()),
            config_message: AtomicU32::new(0),
            events: AtomicPtr::new(ptr::null_mut()),
            config_changed: AtomicBool::new(false),
        }
    }

    /// From here on interrupts are handled.
    pub fn start(&self, callbacks: &Callbacks, transport: &Transport, vectors: Vectors) {
        let (handle, queue_dpc) = callbacks.queue_dpc();
        self.device_handle.store(handle, Ordering::Relaxed);
        let queue_dpc = queue_dpc.map_or(ptr::null_mut(), |call| call as *mut c_void);
        self.queue_dpc.store(queue_dpc, Ordering::Relaxed);
        let isr = match vectors.config {
            // With MSI-X the status register is not used (§4.1.5.4).
            Some(_) => ptr::null_mut(),
            None => transport.isr.register(0).unwrap_or(ptr::null_mut()),
        };
        self.isr.store(isr, Ordering::Relaxed);
        let message = vectors.config.map_or(u32::MAX, u32::from);
        self.config_message.store(message, Ordering::Relaxed);
        let events = transport.device.register(CONFIG_EVENTS_READ);
        self.events
            .store(events.unwrap_or(ptr::null_mut()), Ordering::Relaxed);
        self.ready.store(true, Ordering::SeqCst);
    }

    /// From here on interrupts are not handled, and no routine or DPC of
    /// ours is running. Below DISPATCH_LEVEL, with the device reset: no new
    /// interrupt can come.
    #[inline(never)]
    pub fn stop(&self) {
        self.ready.store(false, Ordering::SeqCst);
        // A routine on another processor that saw `ready` ends soon.
        while self.running.load(Ordering::SeqCst) != 0 {
            core::hint::spin_loop();
        }
    }

    /// Runs `work` unless stopped; the two orders of `running` and `ready`
    /// here and in `stop` make it impossible that both go ahead.
    fn guarded<T: Default>(&self, work: impl FnOnce() -> T) -> T {
        self.running.fetch_add(1, Ordering::SeqCst);
        let result = if self.ready.load(Ordering::SeqCst) {
            work()
        } else {
            T::default()
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// The interrupt routine, at DIRQL: whether it was ours.
    #[inline(never)]
    pub fn interrupt(&self, message: u32, queues: [&Queue; 2]) -> bool {
        #[cfg(feature = "defects")]
        crate::defects::irql::interrupt();
        self.guarded(|| {
            let isr = self.isr.load(Ordering::Relaxed);
            if isr.is_null() {
                // A message is nobody else's.
                if message == self.config_message.load(Ordering::Relaxed) {
                    self.config_changed.store(true, Ordering::Release);
                    self.request_dpc();
                } else if queues.iter().any(|queue| queue.has_completions()) {
                    self.request_dpc();
                }
                return true;
            }
            // Reading it acknowledges the line (§4.1.4.5).
            // SAFETY: mapped while `ready`.
            let status = unsafe { ptr::read_volatile(isr) };
            if status & ISR_CONFIG != 0 {
                self.config_changed.store(true, Ordering::Release);
            }
            if status & (ISR_CONFIG | ISR_QUEUE) != 0 {
                self.request_dpc();
                return true;
            }
            false
        })
    }

    fn request_dpc(&self) {
        let call = self.queue_dpc.load(Ordering::Relaxed);
        if call.is_null() {
            return;
        }
        // SAFETY: stored by `start` from a `QueueDpc`.
        let call: QueueDpc = unsafe { core::mem::transmute(call) };
        // SAFETY: the callback may be called at any IRQL; FALSE means that
        // the DPC is queued already.
        unsafe { call(self.device_handle.load(Ordering::Relaxed)) };
    }

    /// The DPC, at DISPATCH_LEVEL.
    #[inline(never)]
    pub fn deferred(&self, queues: [&Queue; 2]) {
        #[cfg(feature = "defects")]
        crate::defects::irql::deferred();
        self.guarded(|| {
            if self.config_changed.swap(false, Ordering::AcqRel) {
                self.acknowledge_events();
            }
            for queue in queues {
                queue.complete();
            }
            #[cfg(feature = "defects")]
            crate::defects::races::completed(queues[0]);
        });
    }

    /// Clears the pending display events (§5.7.4): the picture keeps the
    /// size that its creator chose, so nothing follows from them.
    fn acknowledge_events(&self) {
        let events = self.events.load(Ordering::Relaxed);
        if events.is_null() {
            return;
        }
        let clear = events.wrapping_byte_add(CONFIG_EVENTS_CLEAR - CONFIG_EVENTS_READ);
        // SAFETY: device configuration, mapped while `ready`; the structure
        // is longer than its first two fields.
        unsafe {
            let pending = ptr::read_volatile(events);
            if pending != 0 {
                ptr::write_volatile(clear, pending);
            }
        }
    }
}

impl Default for Interrupts {
    fn default() -> Self {
        Self::new()
    }
}
