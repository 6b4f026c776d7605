//! A tick that takes the vCPU out of the guest, so that a run can be ended by
//! the host's clock or by Ctrl-C.
//!
//! A POSIX timer sends a signal to the thread that runs the vCPU. The thread
//! has it blocked, and KVM_SET_SIGNAL_MASK lets it through only while KVM_RUN
//! lasts: so no other system call of the thread ever sees a tick (KVM's own
//! fail with EINTR on one), and a tick just before KVM_RUN is not lost. KVM_RUN
//! then returns EINTR with the tick still pending, and [`Alarm::consume`]
//! takes it. Whoever sees EINTR looks at the clock and at the flag, so a tick
//! too many changes nothing.
#![allow(unsafe_code)] // sigaction, timer_create and their kind have no safe form

use super::error::VmError;
use kvm_ioctls::VcpuFd;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::OnceLock;

/// Between two ticks, nanoseconds: how late a limit may be noticed.
const PERIOD: libc::c_long = 20_000_000;

/// Which of the real-time signals.
const SIGNAL: libc::c_int = 5;
/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`, which kvm-ioctls lacks.
const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;

/// `struct kvm_signal_mask` of the kernel's interface.
#[repr(C)]
struct SignalMask {
    length: u32,
    signals: [u8; 8],
}

/// The tick of one vCPU thread.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: libc::timer_t,
    thread: libc::pid_t,
}

// SAFETY: a timer id is an index into a table of the process, usable from any
// of its threads.
unsafe impl Send for Alarm {}

impl Alarm {
    /// Start ticking for the calling thread, and let ticks interrupt `vcpu`.
    pub fn start(vcpu: &VcpuFd) -> Result<Self, VmError> {
        let signal = install()?;
        let failed = || Err(VmError::Timer(io::Error::last_os_error()));
        // SAFETY: all structures are plain data, zeroed and then filled, and
        // outlive the calls; the signal has a handler.
        unsafe {
            let set = only(signal);
            let mut blocked: libc::sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut blocked);
            libc::sigdelset(&mut blocked, signal);
            let mask = SignalMask {
                length: 8,
                // The kernel's set is the first 8 bytes of the C library's.
                signals: ptr::from_ref(&blocked).cast::<[u8; 8]>().read(),
            };
            if libc::ioctl(vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK, &mask) != 0 {
                return failed();
            }

            let thread = current_thread();
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_notify_thread_id = thread;
            let mut timer: libc::timer_t = ptr::null_mut();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) != 0 {
                return failed();
            }
            let alarm = Self { timer, thread };
            let period = libc::timespec {
                tv_sec: 0,
                tv_nsec: PERIOD,
            };
            let times = libc::itimerspec {
                it_interval: period,
                it_value: period,
            };
            if libc::timer_settime(timer, 0, &times, ptr::null_mut()) != 0 {
                return failed(); // dropping `alarm` deletes the timer
            }
            Ok(alarm)
        }
    }

    /// Take the ticks that are pending, after EINTR.
    pub fn consume(&self) {
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let set = only(libc::SIGRTMIN() + SIGNAL);
        // A timer has at most one signal pending, and overruns are counted.
        // SAFETY: the set and the time are plain data that outlive the call;
        // with none pending it fails at once.
        unsafe {
            libc::sigtimedwait(&set, ptr::null_mut(), &at_once);
        }
    }

    /// Does it tick for the calling thread?
    pub fn is_here(&self) -> bool {
        self.thread == current_thread()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and was created; a tick still pending is
        // blocked, and taken by the next machine of the thread.
        unsafe {
            libc::timer_delete(self.timer);
        }
    }
}

fn only(signal: libc::c_int) -> libc::sigset_t {
    // SAFETY: a set is plain data, made valid by sigemptyset.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        set
    }
}

fn current_thread() -> libc::pid_t {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// Install the handler, once for the process; it stays.
fn install() -> Result<libc::c_int, VmError> {
    static INSTALLED: OnceLock<Option<i32>> = OnceLock::new();
    let signal = libc::SIGRTMIN() + SIGNAL;
    let error = INSTALLED.get_or_init(|| {
        // SAFETY: the action is plain data, and its handler is a function
        // that is safe to run at any moment because it does nothing. It never
        // runs: it is there so that a tick is not ignored, nor deadly.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&mut action.sa_mask);
            if libc::sigaction(signal, &action, ptr::null_mut()) == 0 {
                None
            } else {
                io::Error::last_os_error().raw_os_error()
            }
        }
    });
    match error {
        None => Ok(signal),
        Some(code) => Err(VmError::Timer(io::Error::from_raw_os_error(*code))),
    }
}
