//! Which faults can be.

use super::{Fault, What};

/// What is wrong with a fault, and what to write; the first thing.
pub(super) fn check(fault: &Fault) -> Result<(), String> {
    let (at, outcome) = (fault.at, fault.outcome);
    if !at.outcomes().contains(&outcome) {
        let can: Vec<&str> = at.outcomes().iter().map(|outcome| outcome.name()).collect();
        return Err(format!(
            "do = \"{}\" makes no sense at = \"{}\": give one of {}",
            outcome.name(),
            at.name(),
            can.join(", ")
        ));
    }
    let filters = [
        ("function", fault.function.is_some()),
        ("caller", fault.caller.is_some()),
        ("command", fault.command.is_some()),
        ("descriptor", fault.descriptor.is_some()),
        ("iova", fault.iova.is_some()),
        ("direction", fault.direction.is_some()),
        ("queue", fault.queue.is_some()),
    ];
    for (name, given) in filters {
        if given && !at.filters().contains(&name) {
            return Err(match at.filters() {
                [] => format!(
                    "{name} tells no two sites at = \"{}\" apart: leave it out",
                    at.name()
                ),
                some => format!(
                    "{name} tells no two sites at = \"{}\" apart: {} do",
                    at.name(),
                    some.join(", ")
                ),
            });
        }
    }
    parameters(fault)?;
    for (name, range) in [("iova", fault.iova), ("window", fault.window)] {
        if let Some((first, last)) = range.filter(|(first, last)| first > last) {
            return Err(format!(
                "{name} = [{first:#x}, {last:#x}] is empty: give the lower end first"
            ));
        }
    }
    for (name, times) in [("nth", fault.nth), ("every", fault.every)] {
        if times == Some(0) {
            return Err(format!("{name} = 0: times are counted from 1"));
        }
    }
    if fault.nth.is_some() && fault.every.is_some() {
        return Err("nth and every: keep one".to_owned());
    }
    if let Some(caller) = &fault.caller
        && !caller.contains('!')
    {
        return Err(format!("caller = {caller:?}: write module!function"));
    }
    Ok(())
}

/// Numbers that say how it is done.
fn parameters(fault: &Fault) -> Result<(), String> {
    let outcome = fault.outcome;
    let takes = |name: &str, given: bool, who: &[What]| {
        if given && !who.contains(&outcome) {
            return Err(format!(
                "{name} says nothing about do = \"{}\": leave it out",
                outcome.name()
            ));
        }
        Ok(())
    };
    let needs = |name: &str, given: bool, who: What, what: &str| {
        if !given && outcome == who {
            return Err(format!("do = \"{}\" needs {name}: {what}", outcome.name()));
        }
        Ok(())
    };
    let later = [What::Delay, What::Late, What::Spurious];
    takes("status", fault.status.is_some(), &[What::Fail])?;
    takes("pages", fault.pages.is_some(), &[What::Partial])?;
    takes("ns", fault.ns.is_some(), &later)?;
    takes("to", fault.to.is_some(), &[What::Redirect])?;
    if fault.status.is_some() && fault.at != super::SiteKind::Call {
        return Err(format!(
            "status: what fails at = \"{}\" is no routine; use at = \"call\"",
            fault.at.name()
        ));
    }
    needs(
        "pages",
        fault.pages.is_some(),
        What::Partial,
        "the most that are given",
    )?;
    needs(
        "to",
        fault.to.is_some(),
        What::Redirect,
        "the device address where the access goes",
    )?;
    if fault.pages == Some(0) {
        return Err("pages = 0: that is do = \"fail\"".to_owned());
    }
    Ok(())
}
