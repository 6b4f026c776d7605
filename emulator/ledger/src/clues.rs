//! What led to a finding: the calls before it that its own facts do not show.

use crate::finding::{Clue, ClueKind, Place};
use journal::event::{NameId, StackId};
use std::collections::BTreeMap;

/// Threads whose IRQL is known.
const MAX_THREADS: usize = 1 << 10;
/// Routines of the driver that run at a time.
const MAX_RUNNING: usize = 64;
/// Raises of the IRQL that are in force at a time, and traps between calls.
const MAX_RAISED: usize = 16;
/// Addresses remembered for each purpose.
const MAX_ADDRESSES: usize = 1 << 14;

/// `IoReadAccess` of `LOCK_OPERATION` (wdm.h).
const READ_ACCESS: u8 = 0;
/// `UserMode` of `KPROCESSOR_MODE` (wdm.h).
const USER_MODE: u8 = 1;

/// A moment: virtual time and stack.
type At = (u64, StackId);

/// What raised an IRQL.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Call(NameId),
    Processor,
    Entered { routine: NameId, address: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Raise {
    from: u8,
    to: u8,
    cause: Cause,
    at: At,
}

/// The IRQL of a thread, as its calls told it.
#[derive(Clone, Debug, Default)]
struct Level {
    irql: u8,
    raised: Vec<Raise>,
    /// The latest call.
    call: Option<(NameId, At)>,
    /// Writes of CR8 since, and what they wrote.
    traps: Vec<(u64, At)>,
}

impl Level {
    /// Its code runs at this IRQL now.
    fn observe(&mut self, irql: u8) {
        while self.raised.last().is_some_and(|raise| raise.to > irql) {
            self.raised.pop();
        }
        if irql > self.irql {
            let by_itself = |(value, _): &&(u64, At)| *value == u64::from(irql);
            let trap = self.traps.iter().rev().find(by_itself);
            let cause = match (trap, self.call) {
                (Some((_, at)), _) => Some((Cause::Processor, *at)),
                (None, Some((name, at))) => Some((Cause::Call(name), at)),
                (None, None) => None,
            };
            if let Some((cause, at)) = cause {
                self.raise(irql, cause, at);
            }
        }
        self.irql = irql;
    }

    fn raise(&mut self, to: u8, cause: Cause, at: At) {
        if self.raised.len() < MAX_RAISED {
            self.raised.push(Raise {
                from: self.irql,
                to,
                cause,
                at,
            });
        }
    }
}

/// A mapping of an MDL to user addresses.
#[derive(Clone, Copy, Debug)]
struct UserMapping {
    /// 0 until the routine has returned.
    address: u64,
    at: At,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clues {
    threads: BTreeMap<u32, Level>,
    /// The thread that called last.
    thread: u32,
    running: Vec<(u32, NameId, Level)>,
    /// Freed blocks, by address: the routine, and who called it.
    released: BTreeMap<u64, (NameId, At)>,
    /// The block that a routine is freeing.
    releasing: Option<(NameId, u64, At)>,
    /// MDLs that were locked: the operation, and who locked them.
    locked: BTreeMap<u64, (u8, At)>,
    /// MDLs that are mapped to user addresses.
    user: BTreeMap<u64, UserMapping>,
    /// The MDL that a routine is mapping.
    mapping: Option<(NameId, u64)>,
}

/// Remember, if there is room.
fn keep<T>(map: &mut BTreeMap<u64, T>, key: u64, value: T) {
    if map.len() < MAX_ADDRESSES || map.contains_key(&key) {
        map.insert(key, value);
    }
}

impl Clues {
    fn level(&mut self, thread: u32) -> Option<&mut Level> {
        let room = self.threads.len() < MAX_THREADS || self.threads.contains_key(&thread);
        room.then(|| self.threads.entry(thread).or_default())
    }

    /// The driver calls Windows.
    pub(crate) fn call(
        &mut self,
        (function, name): (NameId, &str),
        arguments: &[u64],
        (irql, thread): (u8, u32),
        at: At,
    ) {
        self.thread = thread;
        if let Some(level) = self.level(thread) {
            level.observe(irql);
            level.call = Some((function, at));
            level.traps.clear();
        }
        let argument = |index: usize| arguments.get(index).copied().unwrap_or_default();
        let first = argument(0);
        // Of an argument that is narrower than its register the rest is
        // undefined (Microsoft's x64 calling convention).
        let byte = |index: usize| argument(index).to_le_bytes()[0];
        match name {
            "ExFreePool" | "ExFreePoolWithTag" | "IoFreeMdl" => {
                self.releasing = Some((function, first, at));
                self.locked.remove(&first);
            }
            "MmProbeAndLockPages" => keep(&mut self.locked, first, (byte(2), at)),
            "MmUnlockPages" | "MmBuildMdlForNonPagedPool" => {
                self.locked.remove(&first);
            }
            "MmMapLockedPages" | "MmMapLockedPagesSpecifyCache" if byte(1) == USER_MODE => {
                keep(&mut self.user, first, UserMapping { address: 0, at });
                self.mapping = Some((function, first));
            }
            "MmUnmapLockedPages" => {
                let mdl = argument(1);
                if self.user.get(&mdl).is_some_and(|of| of.address == first) {
                    self.user.remove(&mdl);
                }
            }
            _ => {}
        }
    }

    /// Windows returns to the driver.
    pub(crate) fn returned(&mut self, function: NameId, value: u64) {
        match self.releasing.take() {
            Some((name, block, at)) if name == function => {
                keep(&mut self.released, block, (name, at));
                return;
            }
            other => self.releasing = other,
        }
        self.made(value);
        if let Some((name, mdl)) = self.mapping
            && name == function
        {
            self.mapping = None;
            if value == 0 {
                self.user.remove(&mdl);
            } else if let Some(mapping) = self.user.get_mut(&mdl) {
                mapping.address = value;
            }
        }
    }

    /// There is something at this address again.
    pub(crate) fn made(&mut self, address: u64) {
        self.released.remove(&address);
    }

    /// Windows calls the driver.
    pub(crate) fn enter(
        &mut self,
        routine: NameId,
        address: u64,
        (irql, thread): (u8, u32),
        time: u64,
    ) {
        self.thread = thread;
        if self.running.len() >= MAX_RUNNING {
            return;
        }
        let Some(level) = self.level(thread) else {
            return;
        };
        let before = level.clone();
        while level.raised.last().is_some_and(|raise| raise.to > irql) {
            level.raised.pop();
        }
        if irql > level.irql {
            let cause = Cause::Entered { routine, address };
            level.raise(irql, cause, (time, StackId(0)));
        }
        level.irql = irql;
        level.call = None;
        level.traps.clear();
        self.running.push((thread, routine, before));
    }

    /// The driver's routine is over: its thread is as it was before.
    pub(crate) fn leave(&mut self, routine: NameId) {
        let innermost = self
            .running
            .iter()
            .rposition(|(_, name, _)| *name == routine);
        if let Some(at) = innermost {
            let (thread, _, before) = self.running.remove(at);
            self.threads.insert(thread, before);
        }
    }

    /// The driver wrote CR8.
    pub(crate) fn set_irql(&mut self, value: u64, at: At) {
        let thread = self.thread;
        if let Some(level) = self.level(thread)
            && level.traps.len() < MAX_RAISED
        {
            level.traps.push((value, at));
        }
    }

    /// Why the code that called last runs at an IRQL above `PASSIVE_LEVEL`.
    pub(crate) fn raised(
        &self,
        name: impl Fn(NameId) -> String,
        place: impl Fn(At) -> Place,
    ) -> Option<Clue> {
        let level = self.threads.get(&self.thread)?;
        let raise = level.raised.last().filter(|of| of.to == level.irql)?;
        let (from, to) = (raise.from, raise.to);
        let (text, place) = match raise.cause {
            Cause::Call(by) => (
                format!(
                    "the IRQL was raised from {from} to {to} here, by {}",
                    name(by)
                ),
                place(raise.at),
            ),
            Cause::Processor => (
                format!("the IRQL was raised from {from} to {to} here, by a write of CR8"),
                place(raise.at),
            ),
            Cause::Entered { routine, address } => (
                format!("Windows called {} at IRQL {to}", name(routine)),
                Place {
                    time: raise.at.0,
                    stack: vec![address],
                },
            ),
        };
        Some(Clue {
            kind: ClueKind::Raised,
            text,
            place,
        })
    }

    /// Who freed the block at this address.
    pub(crate) fn released(
        &self,
        address: u64,
        name: impl Fn(NameId) -> String,
        place: impl Fn(At) -> Place,
    ) -> Option<Clue> {
        let &(by, at) = self.released.get(&address)?;
        Some(Clue {
            kind: ClueKind::Released,
            text: format!("it was freed here, by {}", name(by)),
            place: place(at),
        })
    }

    /// Who mapped the MDL to user addresses.
    pub(crate) fn user_mapped(&self, mdl: u64, place: impl Fn(At) -> Place) -> Option<Clue> {
        let mapping = self.user.get(&mdl).filter(|of| of.address != 0)?;
        Some(Clue {
            kind: ClueKind::UserMapped,
            text: format!("mapped for user mode here, at {:#x}", mapping.address),
            place: place(mapping.at),
        })
    }

    /// Who locked the MDL, before it was mapped at `until`.
    pub(crate) fn locked(&self, mdl: u64, until: u64, place: impl Fn(At) -> Place) -> Option<Clue> {
        let &(operation, at) = self.locked.get(&mdl)?;
        let (kind, access) = match operation {
            READ_ACCESS => (ClueKind::LockedForReading, "IoReadAccess"),
            1 => (ClueKind::Locked, "IoWriteAccess"),
            2 => (ClueKind::Locked, "IoModifyAccess"),
            _ => (ClueKind::Locked, "an operation that is not defined"),
        };
        (at.0 <= until).then(|| Clue {
            kind,
            text: format!("locked with {access} here, by MmProbeAndLockPages"),
            place: place(at),
        })
    }
}
