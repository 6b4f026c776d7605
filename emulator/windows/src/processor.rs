//! What Windows does about what the processor reports of the driver's code,
//! and about memory that is gone when it follows the driver's pointers.

use crate::call::{Outcome, Stop};
use crate::mm::{Absent, GoneKind};
use crate::platform::PlatformError;
use crate::rules::executive::ARGUMENT_NOT_MAPPED;
use crate::rules::{Rule, processor as rule};
use crate::{Windows, mm::spec::SYSTEM_RANGE_START};
use journal::event::Subject;
use memory::Gva;

/// An access that the page tables do not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BadAccess {
    /// Where.
    pub address: Gva,
    /// A write?
    pub write: bool,
    /// The fetch of an instruction?
    pub fetch: bool,
    /// The page is there, but not for this.
    pub mapped: bool,
    /// The instruction.
    pub rip: Gva,
    /// The IRQL.
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

    /// Parameters of bug check 0x50.
    fn fault(&self) -> [u64; 3] {
        let kind = if self.fetch {
            0x10
        } else {
            u64::from(self.write) * 2
        };
        [self.address.0, kind, self.rip.0]
    }

    /// Of bug check 0xD1.
    fn at_irql(&self) -> [u64; 4] {
        let kind = if self.fetch { 8 } else { u64::from(self.write) };
        [self.address.0, u64::from(self.irql), kind, self.rip.0]
    }

    /// Of bug checks 0xD5 and 0xD6.
    fn special(&self) -> [u64; 3] {
        [self.address.0, u64::from(self.write), self.rip.0]
    }
}

impl Windows {
    /// The driver's code accessed what it may not.
    #[must_use]
    pub fn bad_access(&self, access: &BadAccess) -> Stop {
        let (address, verb) = (access.address, access.verb());
        let did = format!("the driver {verb} {address}");
        if access.mapped && access.write {
            let what = format!("{did}, which is only to be read");
            return rule::READ_ONLY
                .stop(&[address.0], what)
                .about(self.mm.subject_at(address));
        }
        if access.mapped && access.fetch {
            let what = format!("{did}, which is data");
            return rule::NO_EXECUTE.stop(&[address.0], what);
        }
        let high = access.irql >= 2;
        match self.mm.absent(address) {
            Some(Absent::Gone(gone)) => {
                let what = format!("{did}: it lay in {}", gone.describe());
                let stop = match gone.kind {
                    _ if high => rule::GONE_AT_DISPATCH.stop(&access.at_irql(), what),
                    GoneKind::Pool { .. } => rule::FREED_POOL.stop(&access.special(), what),
                    _ => rule::UNMAPPED.stop(&access.fault(), what),
                };
                stop.about(gone.subject())
            }
            Some(Absent::PastPartial {
                given,
                requested,
                subject,
            }) => {
                let what = format!(
                    "{did}, past the {given} pages that the MDL at {:#x} was given of {requested}",
                    subject.address
                );
                let stop = match high {
                    true => rule::PAST_PARTIAL_AT_DISPATCH.stop(&access.at_irql(), what),
                    false => rule::PAST_PARTIAL.stop(&access.fault(), what),
                };
                stop.about(subject)
            }
            Some(Absent::PastPool { size, subject }) => {
                let what = format!(
                    "{did}, past the pool block at {:#x} of {size} bytes",
                    subject.address
                );
                let stop = match high {
                    true => rule::AT_HIGH_IRQL.stop(&access.at_irql(), what),
                    false => rule::PAST_POOL.stop(&access.special(), what),
                };
                stop.about(subject)
            }
            None if high => {
                let what = format!("{did}, which is not there, at IRQL {}", access.irql);
                rule::AT_HIGH_IRQL.stop(&access.at_irql(), what)
            }
            None if address.0 < SYSTEM_RANGE_START => access_violation(address, verb, access.rip),
            None => {
                let what = format!("{did}, which is not mapped");
                rule::NOT_MAPPED.stop(&access.fault(), what)
            }
        }
    }

    /// What comes of a call, with its reason: where Windows followed a
    /// pointer to memory that is not there, what that was.
    #[must_use]
    pub fn explain(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Stop(stop) if stop.rule == Some(ARGUMENT_NOT_MAPPED.id) => {
                Outcome::Stop(self.explain_stop(stop))
            }
            other => other,
        }
    }

    fn explain_stop(&self, stop: Stop) -> Stop {
        let [address, ..] = stop.parameters;
        let Some(absent) = self.mm.absent(Gva(address)) else {
            return stop;
        };
        let from = |rule: &Rule, what: String, subject: Subject| Stop {
            go_on: stop.go_on,
            ..rule.stop(&[address], what).about(subject)
        };
        let leads = format!("an argument of the call leads to {address:#x}");
        match absent {
            Absent::Gone(gone) => {
                let rule = match gone.kind {
                    GoneKind::Pool { .. } => &rule::ARGUMENT_FREED,
                    _ => &rule::ARGUMENT_UNMAPPED,
                };
                let what = format!("{leads}: it lay in {}", gone.describe());
                from(rule, what, gone.subject())
            }
            Absent::PastPartial {
                given,
                requested,
                subject,
            } => {
                let what = format!(
                    "{leads}, past the {given} pages that the MDL at {:#x} was given of \
                     {requested}",
                    subject.address
                );
                from(&rule::ARGUMENT_PAST_PARTIAL, what, subject)
            }
            Absent::PastPool { subject, .. } => stop.about(subject),
        }
    }

    /// A timer or a DPC that Windows still uses is gone.
    #[must_use]
    pub fn object_freed(&self, object: &str, state: &str, error: &PlatformError) -> Stop {
        let (PlatformError::NotMapped(address) | PlatformError::CannotMap { address, .. }) = error;
        let what = format!("the driver freed a {object} that was {state}: {error}");
        rule::OBJECT_FREED
            .stop(&[address.0], what)
            .about(self.mm.subject_at(*address))
    }
}

/// An access to an address below kernel space, or to one that is none.
#[must_use]
pub fn access_violation(address: Gva, verb: &str, rip: Gva) -> Stop {
    let what = format!(
        "access violation: the driver {verb} the address {address}, which is no kernel address"
    );
    rule::NO_KERNEL_ADDRESS.stop(&[rip.0], what)
}

/// An exception that nobody handles.
#[must_use]
pub fn exception(status: u64, what: &str, rip: Gva) -> Stop {
    rule::EXCEPTION.stop(&[status, rip.0], format!("{what} at {rip}"))
}

/// The processor finds no stack for the exception that the driver raised, or
/// Windows none for a call: the double fault.
#[must_use]
pub fn no_stack(pointer: u64, what_for: &str) -> Stop {
    let what = format!("a double fault: no kernel stack is left at {pointer:#x} {what_for}");
    rule::NO_STACK.stop(&[pointer], what)
}

/// The driver's code failed fast.
#[must_use]
pub fn fast_fail(code: u32) -> Stop {
    let what = format!("the driver failed fast (int 29h), code {code}");
    rule::FAST_FAIL.stop(&[u64::from(code)], what)
}

/// A routine returned at another IRQL than it was called at. Where the run
/// goes on, Windows' own IRQL is restored.
#[must_use]
pub fn irql_left(routine: &str, called_at: u8, now: u8) -> Stop {
    let what = format!("{routine} was called at IRQL {called_at} and returned at {now}");
    let irqls = u64::from(now) << 16 | u64::from(called_at) << 8;
    rule::IRQL_LEFT.stop(&[irqls], what).or_return(0u64)
}

/// The driver was unloaded while something would still run its code, at
/// `address` if that is known.
#[must_use]
pub fn left_behind(address: Gva, what: &str) -> Stop {
    let what = format!(
        "{what} outlived the driver; end it, and wait for its end, before DriverUnload returns"
    );
    rule::LEFT_BEHIND
        .stop(&[address.0, address.0], what)
        .or_return(0u64)
}
