//! A driver that goes round in a loop.
//!
//! A loop that waits for a device which has nothing left to do never ends,
//! and traps for ever. That it does is proven, not guessed: where the whole
//! machine but its clock is as it was before, and nothing but the clock goes
//! on, the driver comes back there again and again. A loop that counts, or
//! looks at the time, never comes back: one that stalls for long, and gives up
//! in the end, is none of this.

use super::{Machine, RunState};
use crate::error::MachineError;
use crate::vm::Registers;
use journal::event::End;
use std::hash::{Hash, Hasher};
use xxhash_rust::xxh3::Xxh3;

/// Traps of a routine before the first place to come back to is kept; then
/// another is at each double (Brent's search for a cycle).
const FIRST: u64 = 128;
/// Most digests of one place: a loop whose count is in memory comes by with
/// the same registers each time.
const MAX_DIGESTS: u32 = 8;
/// No routine takes longer, virtual nanoseconds: two seconds are what Windows
/// lets a display driver have (TdrDelay).
const MAX_TIME: u64 = 600 * SECOND;
/// Most traps in a row at which nothing goes on but the driver itself: a loop
/// that counts a million looks at a register is just not too long.
const MAX_TRAPS: u64 = 1 << 20;
/// One that goes by time, stalling or looking at it, may have as much of that
/// besides.
const MAX_TIMED: u64 = 10 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// What is remembered of the routine under way. It is no part of a machine's
/// digest: of two machines that are alike but for it, one comes round some
/// rounds later, and goes on as the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spin {
    /// Virtual time when the adapter's life last went on.
    since: u64,
    /// Virtual time and traps when anything last went on but this thread.
    alone: (u64, u64),
    /// Has the driver looked at the time since then, or stalled?
    timed: bool,
    /// Traps from which the places double.
    from: u64,
    /// How many later the next place is kept, if not [`FIRST`].
    next: Option<u64>,
    place: Option<Place>,
}

impl Hash for Spin {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A place to come back to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    registers: Registers,
    /// Of the machine when it first came back with these registers, and the
    /// choices that were made until then.
    machine: Option<(u128, u64)>,
    digests: u32,
}

impl RunState {
    /// A routine of the adapter's life begins or ends.
    pub(super) fn life_goes_on(&mut self, now: u64) {
        self.spin = Spin {
            since: now,
            alone: (now, self.traps),
            from: self.traps,
            ..Spin::default()
        };
    }

    /// The device, an interrupt, a DPC or another thread goes on.
    pub(super) fn others_go_on(&mut self, now: u64) {
        self.spin.alone = (now, self.traps);
        self.spin.timed = false;
    }

    /// The driver looks at the time, or lets it pass.
    pub(super) fn goes_by_time(&mut self) {
        self.spin.timed = true;
    }
}

impl Machine {
    /// Has a routine taken longer than any may?
    pub(super) fn too_long(&self) -> Option<End> {
        let now = self.board.scenario.now();
        let spin = &self.state.spin;
        let (alone, traps) = spin.alone;
        let reason = if now.saturating_sub(spin.since) >= MAX_TIME {
            format!(
                "a routine of the driver has not returned after {} minutes of virtual time",
                MAX_TIME / SECOND / 60
            )
        } else if self.state.traps.saturating_sub(traps) >= MAX_TRAPS
            && (!spin.timed || now.saturating_sub(alone) >= MAX_TIMED)
        {
            format!(
                "the driver goes round in a loop: it has trapped {MAX_TRAPS} times, and nothing \
                 else has gone on meanwhile"
            )
        } else {
            return None;
        };
        let stack = self.board.stack_id();
        Some(End::Hang { reason, stack })
    }

    /// After a trap: a driver that came back to where it was waits, and the
    /// rest of the machine goes on, as it does for one that says that it
    /// waits. Nothing left to go on is a hang.
    pub(super) fn comes_round(&mut self) -> Result<Option<End>, MachineError> {
        if !self.came_round()? {
            return Ok(None);
        }
        self.restart_round();
        let held = std::mem::take(&mut self.state.held);
        if held != Default::default() || self.deliver(false)? {
            return Ok(None);
        }
        // At DISPATCH_LEVEL the other never runs, on this processor: a DPC
        // that interrupts the holder of what it spins for never ends either.
        if self.windows.executive.irql() < 2
            && let Some(other) = self.other_ready()
        {
            self.switch_to(other)?;
            return Ok(None);
        }
        self.others_or_hang(
            "the driver goes round in a loop: processor, memory and device are as they were, the \
             device has nothing to do, no interrupt or DPC can come, no other thread can run and \
             no timer is set",
        )
    }

    fn restart_round(&mut self) {
        let spin = &mut self.state.spin;
        (spin.from, spin.next, spin.place) = (self.state.traps, None, None);
    }

    /// Is the machine but for its clock as it was before in this routine?
    fn came_round(&mut self) -> Result<bool, MachineError> {
        if self.board.vm.mid_instruction() {
            return Ok(false);
        }
        let registers = self.board.vm.registers();
        let spin = &mut self.state.spin;
        let next = spin.next.unwrap_or(FIRST);
        if self.state.traps.saturating_sub(spin.from) >= next {
            spin.next = Some(next.saturating_mul(2));
            spin.place = Some(Place {
                registers,
                machine: None,
                digests: 0,
            });
            return Ok(false);
        }
        match &mut spin.place {
            Some(place) if place.registers == registers && place.digests < MAX_DIGESTS => {
                place.digests += 1;
            }
            _ => return Ok(false),
        }
        // What a loop asks the scenario may be answered another way.
        let now = Some((self.timeless()?, self.choices_of_loops()));
        let Some(place) = &mut self.state.spin.place else {
            return Ok(false);
        };
        Ok(std::mem::replace(&mut place.machine, now) == now)
    }

    /// The choices so far, if a driver that goes round may come to another
    /// by them: allocations may fail. Others only order what goes on.
    fn choices_of_loops(&self) -> u64 {
        match self.plan().may_fail {
            true => self.choices(),
            false => 0,
        }
    }

    /// A digest of the machine but for what the clock says.
    fn timeless(&self) -> Result<u128, MachineError> {
        let mut hasher = Xxh3::new();
        let mut state = self.state.clone();
        state.traps = 0;
        self.hash_board(&mut hasher)?;
        state.hash(&mut hasher);
        self.board.scenario.hash_timeless(&mut hasher);
        Ok(hasher.digest128())
    }
}
