//! A tick that takes the vCPU out of the guest, so that a run can be ended by
//! the host's clock or by Ctrl-C.
//!
//! A POSIX timer sends a signal to the thread that runs the vCPU; the handler
//! does nothing, because its only effect is that KVM_RUN returns EINTR. The
//! timer repeats, so a tick that comes just before KVM_RUN is made up for by
//! the next; and whoever sees EINTR looks at the clock and at the flag, so a
//! tick too many changes nothing.
#![allow(unsafe_code)] // sigaction, timer_create and their kind have no safe form

use super::error::VmError;
use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;

/// Between two ticks, nanoseconds: how late a limit may be noticed.
const PERIOD: libc::c_long = 20_000_000;

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
    /// Start ticking for the calling thread.
    pub fn start() -> Result<Self, VmError> {
        let signal = install()?;
        let failed = || Err(VmError::Timer(io::Error::last_os_error()));
        // SAFETY: all structures are plain data, zeroed and then filled, and
        // outlive the calls; the signal has a handler.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());

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

    /// Does it tick for the calling thread?
    pub fn is_here(&self) -> bool {
        self.thread == current_thread()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and was created; a tick still on its way
        // meets a handler that does nothing.
        unsafe {
            libc::timer_delete(self.timer);
        }
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
    let signal = libc::SIGRTMIN() + 5;
    let error = INSTALLED.get_or_init(|| {
        // SAFETY: the action is plain data, and its handler is a function
        // that is safe to run at any moment because it does nothing.
        // SA_RESTART, so that no other system call of the thread sees the
        // tick; KVM_RUN is never restarted.
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
