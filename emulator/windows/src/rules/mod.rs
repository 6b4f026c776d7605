//! Windows' contract with a display driver, as data: who may call what, when
//! and with what, and what Windows does about a breach.
//!
//! The rooms hold the rules by these rows: a [`Stop`] is made from its row,
//! so that code, certainty, source and text are those that [`all`] lists.
//! Where the documents are silent or contradict each other, what was decided
//! is a row too.

pub(crate) mod contiguous;
mod documents;
pub(crate) mod dxgk;
pub(crate) mod executive;
pub(crate) mod hal;
mod irql;
pub(crate) mod locks;
pub(crate) mod mapping;
pub(crate) mod mm;
pub(crate) mod pool;
pub(crate) mod processor;
#[cfg(test)]
mod tests;
pub(crate) mod work;

pub use irql::Irql;

use crate::call::{Outcome, Stop};
use crate::platform::Platform;
use journal::event::{Breach, Certainty, Event, StackId, Subject};
use std::fmt::Display;

/// Makes the rows of a module, and `RULES`, all of them.
macro_rules! rules {
    ($($name:ident $id:literal = $rule:expr;)*) => {
        $(
            #[doc = concat!("Rule `", $id, "`.")]
            pub(crate) static $name: $crate::rules::Rule = $rule.named($id);
        )*
        /// Every row of this module.
        pub(crate) static RULES: &[&$crate::rules::Rule] = &[$(&$name),*];
    };
}
use rules;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its name: kebab case, and kept.
    pub id: &'static str,
    /// The routines that hold it; none: every routine.
    pub routines: &'static [&'static str],
    /// The rule, in one sentence.
    pub says: &'static str,
    /// What a breach is called in a report, if it has a name there.
    pub finding: Option<&'static str>,
    /// The IRQLs at which the routines may be called, if that is the rule.
    pub irql: Option<Irql>,
    /// What Windows stops with.
    pub bug_check: Option<BugCheck>,
    /// What the routine returns, where it is that which tells the driver.
    pub returns: Option<u64>,
    /// How sure we are of what Windows does about a breach.
    pub certainty: Certainty,
    /// Where it is written, or why it was chosen.
    pub source: &'static str,
}

/// A bug check and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BugCheck {
    /// The code.
    pub code: u32,
    /// What each parameter is.
    pub parameters: [Parameter; 4],
}

/// A parameter of a bug check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// Always this.
    Is(u64),
    /// The IRQL of the call.
    Irql,
    /// This.
    Of(&'static str),
}

impl Rule {
    /// A rule about which nothing is done.
    const fn new(routines: &'static [&'static str], says: &'static str) -> Self {
        Self {
            id: "",
            routines,
            says,
            finding: None,
            irql: None,
            bug_check: None,
            returns: None,
            certainty: Certainty::Ours,
            source: "",
        }
    }

    const fn named(mut self, id: &'static str) -> Self {
        self.id = id;
        self
    }

    const fn finding(mut self, finding: &'static str) -> Self {
        self.finding = Some(finding);
        self
    }

    const fn stops(mut self, code: u32, parameters: [Parameter; 4]) -> Self {
        self.bug_check = Some(BugCheck { code, parameters });
        self
    }

    const fn returns(mut self, value: u64) -> Self {
        self.returns = Some(value);
        self
    }

    const fn documented(mut self, source: &'static str) -> Self {
        self.certainty = Certainty::Documented;
        self.source = source;
        self
    }

    const fn inferred(mut self, source: &'static str) -> Self {
        self.certainty = Certainty::Inferred;
        self.source = source;
        self
    }

    const fn ours(mut self, why: &'static str) -> Self {
        self.certainty = Certainty::Ours;
        self.source = why;
        self
    }

    /// The stop of a breach: `values` are the parameters that the row leaves
    /// open, in order; `what` says what happened.
    #[must_use]
    pub fn stop(&self, values: &[u64], what: impl Display) -> Stop {
        self.stop_at(0, values, what)
    }

    fn stop_at(&self, irql: u8, values: &[u64], what: impl Display) -> Stop {
        debug_assert!(self.bug_check.is_some(), "{} stops nothing", self.id);
        let row = self.bug_check.unwrap_or(BugCheck {
            code: 0,
            parameters: [Parameter::Is(0); 4],
        });
        let mut values = values.iter().copied();
        let parameters = row.parameters.map(|parameter| match parameter {
            Parameter::Is(value) => value,
            Parameter::Irql => u64::from(irql),
            Parameter::Of(_) => values.next().unwrap_or_default(),
        });
        debug_assert!(values.next().is_none(), "{}: too many values", self.id);
        Stop {
            code: row.code,
            parameters,
            certainty: self.certainty,
            reason: format!("{what}. {} ({})", self.says, self.source),
            rule: Some(self.id),
            subject: Subject::default(),
            go_on: None,
        }
    }

    /// [`Rule::stop`], as what comes of a call that can return 0 all the
    /// same.
    pub(crate) fn outcome(&self, values: &[u64], what: impl Display) -> Outcome {
        Outcome::Stop(self.stop(values, what).or_return(0u64))
    }

    /// Tell of a breach that Windows answers with `status`, or with silence
    /// and no status: it is a finding all the same.
    pub(crate) fn report(
        &self,
        p: &mut dyn Platform,
        subject: Subject,
        status: Option<u32>,
        what: impl Display,
    ) {
        let stack = p.stack();
        self.report_from(p, stack, subject, status, what);
    }

    /// [`Rule::report`], from this place in the driver, or from none.
    pub(crate) fn report_from(
        &self,
        p: &dyn Platform,
        stack: StackId,
        subject: Subject,
        status: Option<u32>,
        what: impl Display,
    ) {
        debug_assert!(self.finding.is_some(), "{} is no finding", self.id);
        p.scenario().journal().emit(Event::Breach(Breach {
            rule: self.id.to_owned(),
            finding: self.finding.unwrap_or_default().to_owned(),
            reason: format!("{what}. {} ({})", self.says, self.source),
            certainty: self.certainty,
            status,
            subject,
            stack,
        }));
    }

    /// What the routine returns on a breach, with the reason in the log.
    pub(crate) fn refuse(&self, what: impl Display) -> u64 {
        debug_assert!(self.returns.is_some(), "{} returns nothing", self.id);
        log::debug!("{what}: {} ({})", self.says, self.source);
        self.returns.unwrap_or_default()
    }

    /// [`Rule::refusal`], and a finding.
    pub(crate) fn refuse_and_report(
        &self,
        p: &mut dyn Platform,
        subject: Subject,
        what: impl Display,
    ) -> Outcome {
        let value = self.refuse(&what);
        self.report(p, subject, Some(value as u32), what);
        Outcome::Return(value)
    }

    /// [`Rule::refuse`], as what comes of a call.
    pub(crate) fn refusal(&self, what: impl Display) -> Outcome {
        Outcome::Return(self.refuse(what))
    }
}

/// Every rule, in the order of the rooms.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [
        executive::RULES,
        locks::RULES,
        work::RULES,
        mm::RULES,
        mapping::RULES,
        contiguous::RULES,
        pool::RULES,
        processor::RULES,
        dxgk::RULES,
        hal::RULES,
        documents::RULES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The rule of that name.
#[must_use]
pub fn find(id: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.id == id)
}

/// A rule as it is printed: text, field by field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// `Rule::id`.
    pub id: &'static str,
    /// The routines, by commas.
    pub routines: String,
    /// `Rule::says`.
    pub says: &'static str,
    /// `Rule::finding`, or nothing.
    pub finding: &'static str,
    /// What Windows does: `bug check 0xC4 (0x7E, IRQL, 0x2, 0x0)`, `returns
    /// 0xC0000008`, or nothing.
    pub answer: String,
    /// `documented`, `inferred` or `ours`.
    pub certainty: &'static str,
    /// `Rule::source`.
    pub source: &'static str,
}

/// Every rule as it is printed.
pub fn rows() -> impl Iterator<Item = Row> {
    all().map(|rule| Row {
        id: rule.id,
        routines: rule.routines.join(", "),
        says: rule.says,
        finding: rule.finding.unwrap_or_default(),
        answer: answer(rule),
        certainty: match rule.certainty {
            Certainty::Documented => "documented",
            Certainty::Inferred => "inferred",
            Certainty::Ours => "ours",
        },
        source: rule.source,
    })
}

fn answer(rule: &Rule) -> String {
    match (rule.bug_check, rule.returns) {
        (Some(BugCheck { code, parameters }), _) => {
            let parameters = parameters.map(|parameter| match parameter {
                Parameter::Is(value) => format!("{value:#X}"),
                Parameter::Irql => "IRQL".to_owned(),
                Parameter::Of(what) => what.to_owned(),
            });
            format!("bug check {code:#X} ({})", parameters.join(", "))
        }
        (None, Some(value)) => format!("returns {value:#X}"),
        (None, None) => String::new(),
    }
}
