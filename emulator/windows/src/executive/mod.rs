//! The executive: IRQL, locks, waits, time, DPCs, threads, handles, the
//! registry, and as much of the I/O manager as a display driver meets.
//!
//! [`State`] is data. A routine takes it, the machine and the call, and says
//! what comes of the call; who runs next is the run loop's business:
//!
//! 1. It calls [`State::init`], and sets GS to [`State::kpcr`].
//! 2. It looks up imports in [`SERVICES`].
//! 3. After [`Outcome::Block`] it asks [`State::try_satisfy`], lets time pass
//!    to [`State::next_deadline`], and calls [`State::expire_timers`] and
//!    [`State::refresh_time`] when time has passed.
//! 4. Before code runs below DISPATCH_LEVEL it empties [`State::pop_dpc`].
//! 5. [`State::threads`] lists what may run; it says [`State::switch_to`].

mod arena;
mod bugcheck;
mod dispatcher;
mod dpc;
mod fast_mutex;
mod io;
mod irql;
mod list;
mod mutex;
mod object;
mod print;
mod processor;
mod registry;
mod remove_lock;
mod rules;
mod services;
pub mod spec;
mod spinlock;
mod strings;
#[cfg(test)]
mod tests;
mod thread;
mod time;
mod timer;
mod trace;
mod version;
mod wait;
mod work;

pub use arena::Region;
pub use dpc::Dpc;
pub use object::Handle;
pub use registry::{REG_DWORD, REG_SZ, Registry, Value};
pub use services::SERVICES;
pub use strings::read_unicode_string;
pub use thread::Thread;
pub use version::BUILD;

use crate::{Call, Outcome, Platform, PlatformError};
use memory::Gva;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A routine that drivers import.
pub type Service = fn(&mut State, &mut dyn Platform, &Call) -> Outcome;

/// What a routine's body gives: errors on the way are outcomes too.
type Answer = Result<Outcome, Outcome>;

/// All that changes in the executive.
#[derive(Clone, Debug, Default, Hash)]
pub struct State {
    irql: u8,
    /// The KPCR.
    processor: Gva,
    arena: arena::Arena,
    threads: Vec<Thread>,
    /// The thread that runs.
    current: u32,
    handles: BTreeMap<u64, Handle>,
    next_handle: u32,
    /// References of the objects that lie in the arena.
    references: BTreeMap<Gva, u64>,
    /// Queued KDPCs, next first.
    dpcs: VecDeque<Gva>,
    timers: Vec<timer::Timer>,
    /// Mutexes that a thread holds, and which.
    mutexes: BTreeMap<Gva, u32>,
    /// Named events, by name in lower case.
    events: BTreeMap<String, Gva>,
    /// Buffers that Rtl routines allocated.
    strings: BTreeSet<Gva>,
    registry: Registry,
    io: io::Io,
    work: work::Work,
    /// Lookaside lists that were initialised and not deleted.
    lookasides: BTreeSet<Gva>,
}

impl State {
    /// The executive of a run of the driver with this service name, and the
    /// registry values that were set for it. [`State::init`] follows.
    #[must_use]
    pub fn new(service: &str, settings: &[(String, String)]) -> Self {
        Self {
            registry: Registry::new(service, settings),
            ..Self::default()
        }
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registry, to be changed.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Zeroed memory in the executive's region, for objects that Windows
    /// hands to the driver; `None` when the region is used up.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if the region is not mapped.
    pub fn allocate(
        &mut self,
        p: &mut dyn Platform,
        bytes: u64,
    ) -> Result<Option<Gva>, PlatformError> {
        let Some(at) = self.arena.take(bytes) else {
            return Ok(None);
        };
        // As large as the region at most.
        p.write(at, &vec![0; bytes as usize])?;
        Ok(Some(at))
    }

    /// A lookaside list is in use; false if it was already.
    pub(crate) fn add_lookaside(&mut self, list: Gva) -> bool {
        self.lookasides.insert(list)
    }

    /// A lookaside list is deleted; false if there was none.
    pub(crate) fn remove_lookaside(&mut self, list: Gva) -> bool {
        self.lookasides.remove(&list)
    }

    /// Lookaside lists that are in use.
    pub fn lookasides(&self) -> impl Iterator<Item = Gva> + '_ {
        self.lookasides.iter().copied()
    }

    /// A point to come back to.
    #[must_use]
    pub fn save(&self) -> Self {
        self.clone()
    }

    /// Go back to a point. Guest memory has its own.
    pub fn restore(&mut self, state: &Self) {
        self.clone_from(state);
    }
}

/// STATUS_SUCCESS, or nothing.
fn success() -> Answer {
    Ok(Outcome::Return(0))
}

/// An argument that is a pointer.
fn pointer(call: &Call, p: &dyn Platform, index: usize) -> Result<Gva, PlatformError> {
    call.argument(p, index).map(Gva)
}

/// A field of an object.
fn field(object: Gva, offset: u64) -> Result<Gva, PlatformError> {
    object
        .checked_add(offset)
        .ok_or(PlatformError::NotMapped(object))
}

/// An 8-bit argument: the other bits of its slot are undefined.
fn narrow(value: u64) -> u8 {
    value as u8
}
