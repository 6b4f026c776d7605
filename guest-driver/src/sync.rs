//! Events, a spin lock and a mutex over the kernel's own.
//!
//! All of them live in the adapter's nonpaged block, which does not move.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicI32, Ordering};

use crate::mutations::undo;
use crate::nt::{
    KeAcquireSpinLockRaiseToDpc, KeClearEvent, KeInitializeEvent, KeReleaseSpinLock, KeSetEvent,
    KeWaitForSingleObject,
};
use crate::spec::nt::{
    KERNEL_MODE, KEvent, NOTIFICATION_EVENT, STATUS_SUCCESS, SYNCHRONIZATION_EVENT,
};

/// KWAIT_REASON Executive.
const EXECUTIVE: u32 = 0;

/// A KEVENT.
pub struct Event(UnsafeCell<KEvent>);

// SAFETY: the kernel synchronizes access to an event.
unsafe impl Sync for Event {}
// SAFETY: as above; it is not moved after `init`.
unsafe impl Send for Event {}

impl Event {
    /// Memory for an event; [`init`](Self::init) makes it one.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(KEvent::new()))
    }

    fn init(&self, kind: u32, signaled: bool) {
        // SAFETY: the memory is ours, nonpaged, and not yet shared.
        unsafe { KeInitializeEvent(self.0.get(), kind, u8::from(signaled)) }
    }

    /// The kernel's object.
    pub fn as_ptr(&self) -> *mut KEvent {
        self.0.get()
    }

    /// An event that stays signaled until cleared; at its final address.
    pub fn init_notification(&self, signaled: bool) {
        self.init(NOTIFICATION_EVENT, signaled);
    }

    /// Signals; at most DISPATCH_LEVEL.
    pub fn set(&self) {
        // SAFETY: initialised; Wait is FALSE, so any IRQL up to DISPATCH.
        unsafe {
            KeSetEvent(self.0.get(), 0, 0);
        }
    }

    /// Takes the signal back; at most DISPATCH_LEVEL.
    pub fn clear(&self) {
        // SAFETY: initialised.
        unsafe { KeClearEvent(self.0.get()) }
    }

    /// Waits below DISPATCH_LEVEL until signaled, or `timeout` (negative:
    /// relative, in 100 ns). False when time ran out.
    pub fn wait(&self, timeout: Option<i64>) -> bool {
        let timeout = timeout
            .as_ref()
            .map_or(core::ptr::null(), |t| t as *const i64);
        // SAFETY: initialised; a kernel-mode, unalertable wait, so the only
        // outcomes are the signal and the timeout.
        let status = unsafe {
            KeWaitForSingleObject(self.0.get().cast(), EXECUTIVE, KERNEL_MODE, 0, timeout)
        };
        status == STATUS_SUCCESS
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

/// Data behind a KSPIN_LOCK: reachable up to DISPATCH_LEVEL, held at
/// DISPATCH_LEVEL.
pub struct SpinLock<T> {
    lock: UnsafeCell<usize>,
    data: UnsafeCell<T>,
}

// SAFETY: `data` is reached through a guard only.
unsafe impl<T> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked lock: KeInitializeSpinLock is a store of zero.
    pub const fn new(data: T) -> Self {
        Self {
            lock: UnsafeCell::new(0),
            data: UnsafeCell::new(data),
        }
    }

    /// Raises to DISPATCH_LEVEL and takes the lock.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        // SAFETY: the lock is initialised; callers are at most at DISPATCH.
        let irql = unsafe { KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        SpinGuard { lock: self, irql }
    }
}

/// Holds a [`SpinLock`].
pub struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
    irql: u8,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: taken by `lock`, which saved the IRQL.
        unsafe {
            undo!(
                "spin-lock-release",
                KeReleaseSpinLock(self.lock.lock.get(), self.irql)
            );
        }
    }
}

/// Data behind a lock whose holder may wait; below DISPATCH_LEVEL only.
///
/// The algorithm of the kernel's fast mutex: one atomic when nobody contends.
/// dxgkrnl calls our entry points inside a critical region, so the holder
/// cannot be suspended.
pub struct Mutex<T> {
    /// 1 free, 0 held, below 0 held with that many waiters.
    count: AtomicI32,
    turn: Event,
    data: UnsafeCell<T>,
}

// SAFETY: `data` is reached through a guard only.
unsafe impl<T> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Memory for a mutex; [`init`](Self::init) makes it one.
    pub const fn new(data: T) -> Self {
        Self {
            count: AtomicI32::new(1),
            turn: Event::new(),
            data: UnsafeCell::new(data),
        }
    }

    /// To be called once, at the final address.
    pub fn init(&self) {
        self.turn.init(SYNCHRONIZATION_EVENT, false);
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        if self.count.fetch_sub(1, Ordering::Acquire) != 1 {
            undo!("mutex-wait", self.turn.wait(None));
        }
        MutexGuard { mutex: self }
    }
}

/// Holds a [`Mutex`].
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the mutex is held.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the mutex is held.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.mutex.count.fetch_add(1, Ordering::Release) < 0 {
            undo!("mutex-hand-over", self.mutex.turn.set());
        }
    }
}
