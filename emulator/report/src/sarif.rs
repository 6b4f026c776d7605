//! The report as SARIF 2.1.0 (OASIS), which code-scanning services read.
//!
//! Where the specification leaves room: a result lies where the memory was
//! freed (what must change, mostly), else where the command was submitted,
//! else where it was allocated; that of a broken rule where it was broken. The
//! other places are related locations.

use crate::fingerprint;
use crate::layout::{stack, stop_words};
use crate::model::{Ending, Found, Frame, Report};
use crate::pages;
use crate::triage::Standing;
use journal::status_name;
use ledger::Kind;
use serde_json::{Value, json};

/// What is no finding of the ledger, and still a result.
const OTHERS: [(&str, &str); 4] = [
    ("bug-check", "Windows stopped, or would have stopped."),
    ("start-failed", "The driver refused to start."),
    (
        "unsupported",
        "The driver did what the emulated machine cannot do.",
    ),
    (
        CHECK,
        "What the scenario asks of its run is not so, or was not tested.",
    ),
];
/// A check of the scenario's that failed.
const CHECK: &str = "scenario-check";
/// Name of the fingerprint; the number grows when its making changes.
const FINGERPRINT: &str = "dmasanCause/v1";

/// The whole document.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = format!("{:#}", value(report));
    text.push('\n');
    text
}

fn value(report: &Report) -> Value {
    let findings =
        Kind::ALL.map(|kind| rule(kind.id(), pages::short(kind.id()), pages::body(kind.id())));
    let others = OTHERS.map(|(id, short)| rule(id, short, short));
    let rules: Vec<Value> = findings.into_iter().chain(others).collect();
    let version = report
        .begin
        .as_ref()
        .map_or(env!("CARGO_PKG_VERSION"), |begin| begin.version.as_str());
    let completed = !matches!(
        report.ending,
        Ending::Unsupported { .. } | Ending::Interrupted | Ending::Unknown
    );
    let mut invocation = json!({"executionSuccessful": completed});
    if let Some(command) = &report.meta.reproduce {
        set(&mut invocation, "commandLine", json!(command));
    }
    let notes: Vec<Value> = report
        .triage
        .unused
        .iter()
        .filter_map(|index| report.triage.suppressions.get(*index))
        .map(|rule| {
            json!({
                "level": "warning",
                "message": {"text": format!("unused suppression: {rule}")},
            })
        })
        .collect();
    set(
        &mut invocation,
        "toolConfigurationNotifications",
        json!(notes),
    );
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "dmasan", "semanticVersion": version, "rules": rules}},
            "invocations": [invocation],
            "columnKind": "unicodeCodePoints",
            "results": results(report),
        }],
    })
}

fn set(value: &mut Value, key: &str, to: Value) {
    if let Value::Object(fields) = value {
        fields.insert(key.to_owned(), to);
    }
}

fn rule(id: &str, short: &str, help: &str) -> Value {
    // Services show either; Markdown reads well enough as text.
    json!({
        "id": id,
        "shortDescription": {"text": short},
        "fullDescription": {"text": short},
        "help": {"text": help, "markdown": help},
        "defaultConfiguration": {"level": "error"},
    })
}

fn results(report: &Report) -> Vec<Value> {
    let driver = report.begin.as_ref().map_or("driver.sys", |b| &b.driver);
    let mut results: Vec<Value> = report
        .findings
        .iter()
        .enumerate()
        .map(|(index, found)| finding(report, index, found, driver))
        .collect();
    for (index, stop) in report.stops.iter().enumerate() {
        if stop.finding.is_some() {
            continue;
        }
        let check = &stop.bug_check;
        let words = stop_words(check.code, check.parameters);
        let text = format!("{words}: {}", check.reason);
        let mut result = result(
            "bug-check",
            &text,
            &[("the driver was here", &stop.stack)],
            driver,
        );
        let print = fingerprint::of_stop(stop).digits();
        set(
            &mut result,
            "partialFingerprints",
            json!({FINGERPRINT: print}),
        );
        state(report, &mut result, report.stop_excused(index));
        results.push(result);
    }
    let ended = match &report.ending {
        Ending::StartFailed { routine, status } => {
            let name = status_name(*status).unwrap_or("an NTSTATUS without a common name");
            let text = format!("{routine} returned {status:#010x} ({name})");
            Some(("start-failed", text, &[][..]))
        }
        Ending::Unsupported { reason, stack } => Some(("unsupported", reason.clone(), &stack[..])),
        _ => None,
    };
    if let Some((id, text, stack)) = ended {
        let mut result = result(id, &text, &[("the driver was here", stack)], driver);
        let print = fingerprint::Fingerprint::new(id, None, &[stack]).digits();
        set(
            &mut result,
            "partialFingerprints",
            json!({FINGERPRINT: print}),
        );
        state(report, &mut result, false);
        results.push(result);
    }
    for (name, why) in report.failed_checks() {
        let mut result = result(CHECK, &format!("{name}: {why}"), &[], driver);
        let print = fingerprint::Fingerprint::new(CHECK, Some(name), &[]).digits();
        set(
            &mut result,
            "partialFingerprints",
            json!({FINGERPRINT: print}),
        );
        state(report, &mut result, false);
        results.push(result);
    }
    results.extend(report.triage.fixed.iter().map(|name| {
        let id = name.split(' ').next().unwrap_or_default();
        let text = format!("in the baseline, not in this run: {name}");
        let mut result = result(id, &text, &[], driver);
        set(&mut result, "baselineState", json!("absent"));
        result
    }));
    results
}

fn finding(report: &Report, index: usize, found: &Found, driver: &str) -> Value {
    let finding = &found.finding;
    let who = match (&finding.access, &finding.breach) {
        (Some(access), _) => format!("Device {}: ", access.device),
        (None, Some(breach)) if !breach.reason.is_empty() => format!("{} ", breach.reason),
        _ => String::new(),
    };
    let text = format!(
        "{who}{}. {}",
        finding.summary,
        crate::remedy::remedy(finding)
    );
    let mut result = result(finding.kind.id(), &text, &found.stacks(), driver);
    let print = fingerprint::of(found).digits();
    set(
        &mut result,
        "partialFingerprints",
        json!({FINGERPRINT: print}),
    );
    set(&mut result, "occurrenceCount", json!(finding.count.max(1)));
    let standing = report.standing(index);
    let excused = match standing {
        Standing::Suppressed(rule) => {
            let rule = report.triage.suppressions.get(rule);
            Some(rule.map_or("", |rule| rule.reason.as_str()))
        }
        Standing::Expected => Some("the scenario asks for it"),
        Standing::New | Standing::Known => None,
    };
    if let Some(reason) = excused {
        let suppression = json!([
            {"kind": "external", "status": "accepted", "justification": reason}
        ]);
        set(&mut result, "suppressions", suppression);
    }
    state(report, &mut result, standing == Standing::Known);
    result
}

/// Against the baseline, if there is one (3.27.24).
fn state(report: &Report, result: &mut Value, known: bool) {
    if report.triage.baseline {
        let state = if known { "unchanged" } else { "new" };
        set(result, "baselineState", json!(state));
    }
}

/// A result at the first of its stacks that is not empty.
fn result(id: &str, text: &str, stacks: &[(&str, &[Frame])], driver: &str) -> Value {
    let mut places = stacks.iter().filter(|(_, stack)| !stack.is_empty());
    let first = places.next();
    let related: Vec<Value> = places
        .map(|(what, stack)| location(what, stack, driver))
        .collect();
    let stacks: Vec<Value> = stacks
        .iter()
        .filter(|(_, stack)| !stack.is_empty())
        .map(|(what, frames)| {
            let frames: Vec<Value> = stack::shown(frames)
                .map(|frame| json!({"location": place(&stack::symbol(frame), frame, driver)}))
                .collect();
            json!({"message": {"text": what}, "frames": frames})
        })
        .collect();
    let place = match first {
        Some((what, stack)) => location(what, stack, driver),
        // Services refuse a result without a place.
        None => place("no stack was recorded", &Frame::default(), driver),
    };
    json!({
        "ruleId": id,
        "level": "error",
        "message": {"text": text},
        "locations": [place],
        "relatedLocations": related,
        "stacks": stacks,
    })
}

/// The innermost line of a stack with a source file, else the innermost.
fn location(what: &str, frames: &[Frame], driver: &str) -> Value {
    let sourced = stack::shown(frames).find(|frame| frame.file.is_some());
    let frame = sourced.or_else(|| frames.first()).cloned();
    place(what, &frame.unwrap_or_default(), driver)
}

fn place(what: &str, frame: &Frame, driver: &str) -> Value {
    let file = frame.file.as_deref().unwrap_or(driver);
    let mut physical = json!({"artifactLocation": {"uri": uri(file)}});
    if let Some(line) = frame.line.filter(|line| *line > 0 && frame.file.is_some()) {
        set(&mut physical, "region", json!({"startLine": line}));
    }
    let mut location = json!({"message": {"text": what}, "physicalLocation": physical});
    if let Some(function) = &frame.function {
        let names = json!([{"fullyQualifiedName": function, "kind": "function"}]);
        set(&mut location, "logicalLocations", names);
    }
    location
}

/// A path as a relative URI reference (RFC 3986): no drive, no leading slash,
/// no `.` and `..`, all but unreserved characters escaped.
fn uri(path: &str) -> String {
    let unified = path.replace('\\', "/");
    let rest = match unified.as_bytes() {
        [drive, b':', ..] if drive.is_ascii_alphabetic() => unified.get(2..).unwrap_or_default(),
        _ => &unified,
    };
    let parts = rest
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."));
    let escaped: Vec<String> = parts.map(escaped).collect();
    if escaped.is_empty() {
        "unknown".to_owned()
    } else {
        escaped.join("/")
    }
}

fn escaped(part: &str) -> String {
    let mut out = String::new();
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_relative_references() {
        let rows = [
            ("guest-driver/src/a.rs", "guest-driver/src/a.rs"),
            ("C:\\src\\my driver\\a.c", "src/my%20driver/a.c"),
            ("/build/../x/./a#b.c", "build/x/a%23b.c"),
            ("javascript:alert(1)", "javascript%3Aalert%281%29"),
            ("/", "unknown"),
            ("größe.c", "gr%C3%B6%C3%9Fe.c"),
        ];
        for (path, expected) in rows {
            assert_eq!(uri(path), expected);
        }
    }
}
