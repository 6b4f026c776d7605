//! Bug checks for what the driver's code does to the processor.
//!
//! Codes and parameters are from Windows' bug check reference.

use journal::event::Certainty;
use memory::Gva;
use windows::{PlatformError, Stop};

/// Kernel space starts here.
const KERNEL: u64 = 0xFFFF_8000_0000_0000;

/// The driver was unloaded while something would still run its code, at
/// `address` if that is known.
pub(super) fn left_behind(address: Gva, what: &str) -> Stop {
    Stop {
        code: 0xCE,
        parameters: [address.0, 8, address.0, 0],
        certainty: Certainty::Documented,
        reason: format!(
            "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS: {what} outlived the driver; \
             end it, and wait for its end, before DriverUnload returns"
        ),
        go_on: Some(0),
        rule: None,
        subject: Default::default(),
    }
}

/// An access that the page tables do not allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadAccess {
    pub address: Gva,
    pub write: bool,
    pub fetch: bool,
    /// The page is there, but not for this.
    pub mapped: bool,
    pub rip: Gva,
    pub irql: u8,
}

impl BadAccess {
    fn verb(&self) -> &'static str {
        match (self.fetch, self.write) {
            (true, _) => "executed",
            (_, true) => "wrote",
            _ => "read",
        }
    }

    /// What Windows does about it.
    pub fn stop(&self) -> Stop {
        let (address, verb) = (self.address, self.verb());
        let (irql, rip) = (u64::from(self.irql), self.rip.0);
        let (code, parameters, reason) = if self.mapped && self.write {
            (
                0xBE,
                [address.0, 0, 0, 0],
                format!(
                    "ATTEMPTED_WRITE_TO_READONLY_MEMORY: the driver wrote {address}, which is \
                     only to be read"
                ),
            )
        } else if self.mapped && self.fetch {
            (
                0xFC,
                [address.0, 0, 0, 0],
                format!(
                    "ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY: the driver executed {address}, \
                     which is data"
                ),
            )
        } else if self.irql >= 2 {
            // Above APC_LEVEL no fault is resolved, of any address.
            let kind = if self.fetch { 8 } else { u64::from(self.write) };
            (
                0xD1,
                [address.0, irql, kind, rip],
                format!(
                    "DRIVER_IRQL_NOT_LESS_OR_EQUAL: the driver {verb} {address}, which is not \
                     there, at IRQL {irql}"
                ),
            )
        } else if address.0 < KERNEL {
            return access_violation(address, verb, self.rip);
        } else {
            let kind = if self.fetch {
                0x10
            } else {
                u64::from(self.write) * 2
            };
            (
                0x50,
                [address.0, kind, rip, 0],
                format!(
                    "PAGE_FAULT_IN_NONPAGED_AREA: the driver {verb} {address}, which is not mapped"
                ),
            )
        };
        Stop {
            code,
            parameters,
            certainty: Certainty::Documented,
            reason,
            rule: None,
            subject: Default::default(),
            go_on: None,
        }
    }
}

/// An address below kernel space, or one that is none.
pub(super) fn access_violation(address: Gva, verb: &str, rip: Gva) -> Stop {
    Stop {
        code: 0x7E,
        parameters: [0xC000_0005, rip.0, 0, 0],
        certainty: Certainty::Inferred,
        reason: format!(
            "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED: access violation: the driver {verb} the \
             address {address}, which is no kernel address"
        ),
        rule: None,
        subject: Default::default(),
        go_on: None,
    }
}

/// An exception that nobody handles.
pub(super) fn exception(status: u64, what: &str, rip: Gva) -> Stop {
    Stop {
        code: 0x7E,
        parameters: [status, rip.0, 0, 0],
        certainty: Certainty::Inferred,
        reason: format!("SYSTEM_THREAD_EXCEPTION_NOT_HANDLED: {what} at {rip}"),
        rule: None,
        subject: Default::default(),
        go_on: None,
    }
}

/// The processor finds no stack for the exception that the driver raised, or
/// Windows none for a call: the double fault.
pub(super) fn no_stack(pointer: u64, what_for: &str) -> Stop {
    Stop {
        code: 0x7F,
        parameters: [8, pointer, 0, 0],
        certainty: Certainty::Documented,
        reason: format!(
            "UNEXPECTED_KERNEL_MODE_TRAP: a double fault: no kernel stack is left at \
             {pointer:#x} {what_for}"
        ),
        rule: None,
        subject: Default::default(),
        go_on: None,
    }
}

/// Memory that Windows still uses is gone.
pub(super) fn freed(object: &str, state: &str, error: &PlatformError) -> Stop {
    let (PlatformError::NotMapped(address) | PlatformError::CannotMap { address, .. }) = error;
    Stop {
        code: 0xC7,
        parameters: [0, address.0, 0, 0],
        certainty: Certainty::Inferred,
        reason: format!(
            "TIMER_OR_DPC_INVALID: the driver freed a {object} that was {state}: {error}"
        ),
        rule: None,
        subject: Default::default(),
        go_on: None,
    }
}

/// A routine returned at another IRQL than it was called at.
pub(super) fn irql_left(routine: &str, called_at: u8, now: u8) -> Stop {
    Stop {
        code: 0xC8,
        parameters: [u64::from(now) << 16 | u64::from(called_at) << 8, 0, 0, 0],
        certainty: Certainty::Inferred,
        reason: format!(
            "IRQL_UNEXPECTED_VALUE: {routine} was called at IRQL {called_at} and returned at {now}"
        ),
        rule: None,
        subject: Default::default(),
        // Where the run goes on, Windows' own IRQL is restored.
        go_on: Some(0),
    }
}
