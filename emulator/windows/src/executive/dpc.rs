//! The queue of deferred procedure calls.

use super::rules::{breach, unless};
use super::spec::kdpc;
use super::{Answer, State, field, narrow, pointer};
use crate::rules::executive as rule;
use crate::{Call, Outcome, Platform, PlatformError};
use memory::Gva;

/// Most DPCs that may be queued at once.
const MAX_QUEUED: usize = 4096;

/// A deferred routine to be called at DISPATCH_LEVEL as
/// `routine(object, context, argument1, argument2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dpc {
    /// The KDPC.
    pub object: Gva,
    /// What to call.
    pub routine: Gva,
    /// DeferredContext.
    pub context: u64,
    /// SystemArgument1.
    pub argument1: u64,
    /// SystemArgument2.
    pub argument2: u64,
}

impl State {
    /// Is a DPC queued?
    #[must_use]
    pub fn has_dpc(&self) -> bool {
        !self.dpcs.is_empty()
    }

    /// Take the next DPC off the queue. It can be queued again from then on.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if its KDPC was freed while it was queued.
    pub fn pop_dpc(&mut self, p: &mut dyn Platform) -> Result<Option<Dpc>, PlatformError> {
        let Some(object) = self.dpcs.pop_front() else {
            return Ok(None);
        };
        let dpc = Dpc {
            object,
            routine: Gva(p.read_u64(field(object, kdpc::ROUTINE)?)?),
            context: p.read_u64(field(object, kdpc::CONTEXT)?)?,
            argument1: p.read_u64(field(object, kdpc::ARGUMENT1)?)?,
            argument2: p.read_u64(field(object, kdpc::ARGUMENT2)?)?,
        };
        p.write_u64(field(object, kdpc::DATA)?, 0)?;
        Ok(Some(dpc))
    }

    /// Make a KDPC.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    pub fn initialize_dpc(
        &self,
        p: &mut dyn Platform,
        object: Gva,
        routine: Gva,
        context: u64,
    ) -> Result<(), PlatformError> {
        p.write(object, &[0; kdpc::SIZE as usize])?;
        p.write(object, &[kdpc::TYPE, kdpc::MEDIUM])?;
        p.write_u64(field(object, kdpc::ROUTINE)?, routine.0)?;
        p.write_u64(field(object, kdpc::CONTEXT)?, context)
    }

    /// Queue a KDPC. False if it is queued already; its arguments then stay
    /// as they are.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    pub fn queue_dpc(
        &mut self,
        p: &mut dyn Platform,
        object: Gva,
        argument1: u64,
        argument2: u64,
    ) -> Result<bool, PlatformError> {
        let data = field(object, kdpc::DATA)?;
        if p.read_u64(data)? != 0 || self.dpcs.len() >= MAX_QUEUED {
            return Ok(false);
        }
        p.write_u64(field(object, kdpc::ARGUMENT1)?, argument1)?;
        p.write_u64(field(object, kdpc::ARGUMENT2)?, argument2)?;
        // Windows stores the queue it is in; only null or not matters.
        p.write_u64(data, self.processor.0.max(1))?;
        self.dpcs.push_back(object);
        Ok(true)
    }
}

/// VOID KeInitializeDpc(PRKDPC, PKDEFERRED_ROUTINE, PVOID Context).
pub(super) fn initialize(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (object, routine) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let context = call.argument(p, 2)?;
    state.initialize_dpc(p, object, routine, context)?;
    Ok(Outcome::Return(0))
}

/// BOOLEAN KeInsertQueueDpc(PRKDPC, PVOID, PVOID).
pub(super) fn insert(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    let (argument1, argument2) = (call.argument(p, 1)?, call.argument(p, 2)?);
    let queued = state.queue_dpc(p, object, argument1, argument2)?;
    Ok(Outcome::Return(u64::from(queued)))
}

/// BOOLEAN KeRemoveQueueDpc(PRKDPC).
pub(super) fn remove(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    let before = state.dpcs.len();
    state.dpcs.retain(|&queued| queued != object);
    let removed = state.dpcs.len() != before;
    if removed {
        p.write_u64(field(object, kdpc::DATA)?, 0)?;
    }
    Ok(Outcome::Return(u64::from(removed)))
}

/// VOID KeFlushQueuedDpcs(void). What is queued runs as soon as the IRQL is
/// below DISPATCH_LEVEL, so before the caller goes on: nothing is left to do
/// but to hold the rule, PASSIVE_LEVEL.
pub(super) fn flush(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    let breach = breach(state, &rule::FLUSH_DPCS_IRQL, "KeFlushQueuedDpcs", 0);
    Ok(unless(breach, 0u64))
}

/// VOID KeSetImportanceDpc(PRKDPC, KDPC_IMPORTANCE): kept, without effect on
/// a queue that is always emptied.
pub(super) fn set_importance(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let importance = narrow(call.argument(p, 1)?);
    let at = field(pointer(call, p, 0)?, kdpc::IMPORTANCE)?;
    p.write(at, &[importance])?;
    Ok(Outcome::Return(0))
}
