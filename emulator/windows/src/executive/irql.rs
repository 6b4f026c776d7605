//! IRQL: one number, kept where the driver looks too.

use super::rules::unless;
use super::spec::{irql, kpcr};
use super::{Answer, State, narrow};
use crate::rules::executive as rule;
use crate::{Call, Outcome, Platform, PlatformError, Stop};
use memory::Gva;

impl State {
    /// The current IRQL.
    #[must_use]
    pub fn irql(&self) -> u8 {
        self.irql
    }

    /// Change the IRQL, whatever the rules say; the KPCR follows.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if the KPCR is gone.
    pub fn set_irql(&mut self, p: &mut dyn Platform, level: u8) -> Result<(), PlatformError> {
        self.irql = level.min(irql::HIGH);
        if self.processor == Gva(0) {
            return Ok(()); // not initialised yet
        }
        let at = self.at_processor(kpcr::IRQL)?;
        p.write(at, &[self.irql])
    }

    /// What `mov r, cr8` reads.
    #[must_use]
    pub fn get_cr8(&self) -> u64 {
        u64::from(self.irql)
    }

    /// `mov cr8, r`: how drivers raise and lower IRQL inline. False for a
    /// value that the processor refuses with #GP.
    ///
    /// # Errors
    /// As [`State::set_irql`].
    pub fn set_cr8(&mut self, p: &mut dyn Platform, value: u64) -> Result<bool, PlatformError> {
        match u8::try_from(value) {
            Ok(level) if level <= irql::HIGH => {
                self.set_irql(p, level)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The breach of going from here to `level`, up or down.
    fn bad_change(&self, level: u8, up: bool) -> Option<Stop> {
        let wrong = if up {
            level < self.irql || level > irql::HIGH
        } else {
            level > self.irql
        };
        let (rule, how) = if up {
            (&rule::RAISE, "raised")
        } else {
            (&rule::LOWER, "lowered")
        };
        wrong.then(|| {
            let what = format!("IRQL {how} from {} to {level}", self.irql);
            rule.stop(&[u64::from(self.irql), u64::from(level)], what)
        })
    }

    /// Raise to `level`; the old level, and the breach if it was one.
    pub(super) fn raise(
        &mut self,
        p: &mut dyn Platform,
        level: u8,
    ) -> Result<(u8, Option<Stop>), Outcome> {
        let old = self.irql;
        let breach = self.bad_change(level, true);
        self.set_irql(p, level)?;
        Ok((old, breach))
    }

    /// Lower to `level`; the breach if it was one.
    pub(super) fn lower(
        &mut self,
        p: &mut dyn Platform,
        level: u8,
    ) -> Result<Option<Stop>, Outcome> {
        let breach = self.bad_change(level, false);
        self.set_irql(p, level)?;
        Ok(breach)
    }
}

/// KIRQL KeGetCurrentIrql(void).
pub(super) fn get_current(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(u64::from(state.irql)))
}

/// KIRQL KfRaiseIrql(KIRQL NewIrql).
pub(super) fn raise(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let level = narrow(call.argument(p, 0)?);
    let (old, breach) = state.raise(p, level)?;
    Ok(unless(breach, old))
}

/// KIRQL KeRaiseIrqlToDpcLevel(void).
pub(super) fn raise_to_dpc(state: &mut State, p: &mut dyn Platform, _: &Call) -> Answer {
    let (old, breach) = state.raise(p, irql::DISPATCH)?;
    Ok(unless(breach, old))
}

/// VOID KeLowerIrql(KIRQL NewIrql).
pub(super) fn lower(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let level = narrow(call.argument(p, 0)?);
    let breach = state.lower(p, level)?;
    Ok(unless(breach, 0u64))
}
