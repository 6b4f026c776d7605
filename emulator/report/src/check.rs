//! What a scenario asks of its run beside that nothing be found.

use crate::clean::clean_short;
use crate::model::Report;
use crate::spec::bug_check_name;

/// Most checks that a report keeps; more are told as one.
const MAX_CHECKS: usize = 1024;
/// Characters of a name, and of what is not so.
const MAX_TEXT: usize = 400;

/// One thing that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was asked.
    pub name: String,
    /// What is not so; `None` if it is as it should be.
    pub failure: Option<String>,
}

impl Check {
    /// It is so, or this is not.
    #[must_use]
    pub fn new(name: impl Into<String>, failure: Option<String>) -> Self {
        Self {
            name: name.into(),
            failure,
        }
    }
}

impl Report {
    /// Add what the scenario asks. With `findings` it says which are to be
    /// found, and nothing else makes the run fail: not a finding that is
    /// listed, nor what the driver refuses.
    pub fn ask(&mut self, checks: Vec<Check>, findings: Option<Vec<String>>) {
        let more = checks.len().saturating_sub(MAX_CHECKS);
        let cleaned = checks.into_iter().take(MAX_CHECKS).map(|check| Check {
            name: clean_short(&check.name, MAX_TEXT),
            failure: check.failure.map(|why| clean_short(&why, MAX_TEXT)),
        });
        self.checks.extend(cleaned);
        self.expected = findings;
        if let Some(wanted) = &self.expected {
            let found = |id: &str| self.findings.iter().any(|of| of.finding.kind.id() == id);
            let missing = wanted.iter().filter(|id| !found(id));
            let mut problems: Vec<String> = missing
                .map(|id| format!("there is no finding {id}"))
                .collect();
            let mut others: Vec<&str> = self
                .findings
                .iter()
                .map(|of| of.finding.kind.id())
                .filter(|id| !wanted.iter().any(|of| of == id))
                .collect();
            others.sort_unstable();
            others.dedup();
            problems.extend(
                others
                    .into_iter()
                    .map(|id| format!("there is a finding {id}")),
            );
            let own = self.stops.iter().filter(|stop| stop.finding.is_none());
            problems.extend(own.map(|stop| {
                let code = stop.bug_check.code;
                let name = bug_check_name(code).unwrap_or("no common name");
                format!("there is a bug check {code:#x} ({name}) that answers no finding")
            }));
            let asked = match wanted.as_slice() {
                [] => "verify: nothing is found".to_owned(),
                wanted => format!("verify: found is {}", wanted.join(", ")),
            };
            let failure = Some(problems.join("; ")).filter(|text| !text.is_empty());
            self.checks.push(Check::new(
                clean_short(&asked, MAX_TEXT),
                failure.map(|why| clean_short(&why, MAX_TEXT)),
            ));
        }
        if more > 0 {
            let name = format!("{more} more checks than a report keeps");
            let failure = Some("they were not looked at".to_owned());
            self.checks.push(Check::new(name, failure));
        }
    }

    /// What was asked and is not so: what was asked, and what is.
    pub fn failed_checks(&self) -> impl Iterator<Item = (&str, &str)> {
        let checks = self.checks.iter();
        checks.filter_map(|check| Some((check.name.as_str(), check.failure.as_deref()?)))
    }

    /// Is this finding one that the scenario lists?
    pub(crate) fn is_expected(&self, index: usize) -> bool {
        let found = self.findings.get(index);
        found.is_some_and(|found| {
            let listed = self.expected.iter().flatten();
            listed.into_iter().any(|id| id == found.finding.kind.id())
        })
    }
}
