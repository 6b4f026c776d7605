//! The report for programs; SCHEMA.md beside this crate describes it.

use crate::model::{Ending, Found, Frame, Report};
use crate::remedy::remedy;
use crate::spec::bug_check_name;
use crate::triage::Standing;
use journal::Tail;
use journal::event::{AllocationKind, Certainty, Scope};
use journal::status_name;
use ledger::{AllocationFacts, Blame, BreachFacts, Command, Moment, Outcome, Party, Step, Stop};
use ledger::{ClueKind, Ownership, Place, QueuePart, Reach};
use serde_json::{Value, json};

/// Version of the schema: grows when a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// The report as one JSON document. Keys are in alphabetical order, so equal
/// reports are equal texts.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = format!("{:#}", value(report));
    text.push('\n');
    text
}

fn hex(number: u64) -> Value {
    Value::String(format!("{number:#x}"))
}

fn value(report: &Report) -> Value {
    json!({
        "format": "dmasan-report",
        "version": VERSION,
        "clean": report.is_clean(),
        "passes": report.passes(),
        "run": report.begin.as_ref().map(|begin| json!({
            "dmasan": begin.version,
            "driver": begin.driver,
            "domain": begin.domain,
            "iommu_flags": begin.iommu_flags,
            "framebuffer_pin_fails": begin.framebuffer_pin_fails,
            "seed": hex(begin.seed),
            "scenario": begin.scenario,
            "quarantine": begin.quarantine,
            "keep_going": begin.keep_going,
            "settings": begin.settings.iter()
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect::<Vec<_>>(),
            "memory": begin.memory,
            "device": begin.device.to_string(),
        })),
        "reproduce": report.meta.reproduce,
        "journal": match &report.meta.tail {
            Tail::Clean => json!({"torn": false}),
            Tail::Torn { at, lost, why } => json!({"torn": true, "at": at, "lost": lost, "why": why}),
        },
        "end": ending(&report.ending),
        "findings": report.findings.iter().enumerate()
            .map(|(index, found)| finding(report, index, found))
            .collect::<Vec<_>>(),
        "bug_checks": report.stops.iter().enumerate().map(|(index, stop)| json!({
            "time": stop.time,
            "code": hex(stop.bug_check.code.into()),
            "name": bug_check_name(stop.bug_check.code),
            "parameters": stop.bug_check.parameters.map(hex),
            "certainty": certainty(stop.bug_check.certainty),
            "reason": stop.bug_check.reason,
            "rule": stop.bug_check.rule,
            "breach": stop.bug_check.finding,
            "continued": stop.bug_check.continued,
            "stack": stack(&stop.stack),
            "finding": stop.finding,
            "excused": report.stop_excused(index),
        })).collect::<Vec<_>>(),
        "not_freed": report.live.iter().map(|live| {
            allocation(&live.allocation, &live.stack, &[])
        }).collect::<Vec<_>>(),
        "notes": report.notes,
        "printed": report.printed.iter()
            .map(|line| json!({"time": line.time, "text": line.text}))
            .collect::<Vec<_>>(),
        "checks": report.checks.iter().map(|check| json!({
            "name": check.name,
            "passes": check.failure.is_none(),
            "failure": check.failure,
        })).collect::<Vec<_>>(),
        "unused_suppressions": report.triage.unused.iter()
            .filter_map(|index| report.triage.suppressions.get(*index))
            .map(|rule| json!({
                "finding": rule.kind.id(),
                "function": rule.function,
                "reason": rule.reason,
                "line": rule.line,
            }))
            .collect::<Vec<_>>(),
        "fixed": report.triage.fixed,
        "facts": serde_json::to_value(&report.facts).unwrap_or_default(),
    })
}

fn ending(ending: &Ending) -> Value {
    match ending {
        Ending::Unknown => json!({"state": "unknown"}),
        Ending::Completed => json!({"state": "completed"}),
        Ending::StartFailed { routine, status } => json!({
            "state": "start-failed",
            "routine": routine,
            "status": hex((*status).into()),
            "status_name": status_name(*status),
        }),
        Ending::BugCheck => json!({"state": "bug-check"}),
        Ending::Hang { reason, stack: at } => {
            json!({"state": "hang", "reason": reason, "stack": stack(at)})
        }
        Ending::Unsupported { reason, stack: at } => {
            json!({"state": "unsupported", "reason": reason, "stack": stack(at)})
        }
        Ending::Interrupted => json!({"state": "interrupted"}),
    }
}

fn finding(report: &Report, index: usize, found: &Found) -> Value {
    let finding = &found.finding;
    let access = finding.access.as_ref();
    let (standing, reason) = match report.standing(index) {
        Standing::New => ("new", None),
        Standing::Known => ("known", None),
        Standing::Suppressed(rule) => {
            let rule = report.triage.suppressions.get(rule);
            ("suppressed", rule.map(|rule| rule.reason.as_str()))
        }
        Standing::Expected => ("expected", None),
    };
    json!({
        "id": finding.kind.id(),
        "fingerprint": report.fingerprint(index),
        "standing": standing,
        "suppression": reason,
        "summary": finding.summary,
        "count": finding.count,
        "time": finding.time,
        "last_time": finding.last_time,
        "device": access.map(|access| access.device.to_string()),
        "domain": access.and_then(|access| access.domain),
        "iova": access.map(|access| hex(access.iova.0)),
        "physical": access.and_then(|access| access.page).map(|page| hex(page.0)),
        "length": access.map(|access| access.length),
        "direction": access.map(|access| if access.write { "write" } else { "read" }),
        "outcome": access.map(|access| outcome(access.outcome)),
        "generation": access.and_then(|access| access.generation),
        "breach": finding.breach.as_ref().map(|facts| breach(facts, &found.used)),
        "allocation": finding.allocation.as_ref()
            .map(|facts| allocation(facts, &found.allocated, &found.freed)),
        "allocations": finding.allocations,
        "claim": finding.claim.map(|claim| json!({
            "cookie": hex(claim.cookie),
            "tag": hex(claim.tag.into()),
            "pages": claim.pages,
            "page_index": claim.page_index,
            "allocated": claim.allocated,
            "retired": claim.retired,
            "freed": claim.freed,
        })),
        "queue_area": access.and_then(|access| access.area).map(|area| json!({
            "queue": area.queue,
            "part": match area.part {
                QueuePart::DescriptorTable => "descriptor-table",
                QueuePart::AvailableRing => "available-ring",
                QueuePart::UsedRing => "used-ring",
            },
        })),
        "clues": finding.clues.iter().zip(&found.clues).map(|(clue, frames)| json!({
            "kind": clue_kind(clue.kind),
            "text": clue.text,
            "place": place(&clue.place, frames),
        })).collect::<Vec<_>>(),
        "reused_by": access.and_then(|access| access.reused_by.as_ref())
            .map(|facts| allocation(facts, &found.reused, &[])),
        "command": finding.command().map(|facts| command(facts, &found.used)),
        "mdl": access.and_then(|access| access.mdl.as_ref()).map(|mdl| json!({
            "handle": hex(mdl.handle),
            "address": hex(mdl.mdl),
            "mapped": place(&mdl.mapped, &found.mapped),
            "unmapped": mdl.unmapped.as_ref().map(|at| place(at, &found.unmapped)),
        })),
        "origin": access.and_then(|access| access.origin.as_ref())
            .map(|at| place(at, &found.origin)),
        "refusal": access.and_then(|access| access.refusal).map(|refusal| json!({
            "reason": refusal.reason,
            "text": ledger::spec::fault_reason(refusal.reason),
            "recorded": refusal.recorded,
        })),
        "blame": finding.blame.iter().map(blame).collect::<Vec<_>>(),
        "remedy": remedy(finding),
        "bug_check": finding.stop.as_ref().map(stop),
        "history": {
            "moments": finding.history.moments.iter()
                .map(|moment| history(found, moment)).collect::<Vec<_>>(),
            "omitted": finding.history.omitted,
            "omitted_before": finding.history.gap,
        },
        "surroundings": access.map(|access| json!({
            "first": hex(access.surroundings.first.0),
            "pages": access.surroundings.pages.iter().map(|page| json!({
                "owner": ownership(page.owner),
                "reach": reach(page.reach),
                "same": page.same,
            })).collect::<Vec<_>>(),
        })),
        "related": finding.related,
    })
}

fn stack(frames: &[Frame]) -> Value {
    frames
        .iter()
        .map(|frame| {
            json!({
                "address": hex(frame.address),
                "module": frame.module,
                "function": frame.function,
                "offset": hex(frame.offset),
                "file": frame.file,
                "line": frame.line,
                "inlined": frame.inlined,
            })
        })
        .collect()
}

fn place(place: &Place, frames: &[Frame]) -> Value {
    json!({"time": place.time, "stack": stack(frames)})
}

fn allocation(facts: &AllocationFacts, allocated: &[Frame], freed: &[Frame]) -> Value {
    json!({
        "id": facts.id.0,
        "kind": match facts.kind {
            AllocationKind::DxgkMdl => "dxgk-mdl",
            AllocationKind::DxgkContiguous => "dxgk-contiguous",
            AllocationKind::MmMdl => "mm-mdl",
            AllocationKind::MmContiguous => "mm-contiguous",
            AllocationKind::Pool => "pool",
            AllocationKind::FramebufferSave => "framebuffer-save",
            AllocationKind::HardwareReserved => "hardware-reserved",
        },
        "handle": hex(facts.handle),
        "address": hex(facts.address),
        "pages": facts.pages,
        "page_index": facts.page_index,
        "allocated": place(&facts.allocated, allocated),
        "freed": facts.freed.as_ref().map(|at| place(at, freed)),
    })
}

fn command(facts: &Command, used: &[Frame]) -> Value {
    json!({
        "context": facts.context.0,
        "queue": facts.queue,
        "position": facts.position,
        "head": facts.head,
        "name": facts.name,
        "detail": facts.detail,
        "answer": facts.answer,
        "submitted": facts.submitted.as_ref().map(|at| place(at, used)),
    })
}

fn breach(facts: &BreachFacts, used: &[Frame]) -> Value {
    json!({
        "rule": facts.rule,
        "routine": facts.routine,
        "subject": hex(facts.address),
        "status": facts.status.map(|status| hex(status.into())),
        "status_name": facts.status.and_then(status_name),
        "certainty": certainty(facts.certainty),
        "reason": facts.reason,
        "place": place(&facts.place, used),
    })
}

fn blame(blame: &Blame) -> Value {
    let party = match blame.party {
        Party::Driver => "driver",
        Party::OperatingSystem => "operating-system",
        Party::Device => "device",
        Party::Injected => "injected",
    };
    json!({"party": party, "reason": blame.reason})
}

fn stop(stop: &Stop) -> Value {
    json!({
        "code": hex(stop.code.into()),
        "name": bug_check_name(stop.code),
        "parameters": stop.parameters.map(hex),
        "certainty": certainty(stop.certainty),
        "reason": stop.reason,
        "seen": stop.seen,
        "continued": stop.continued,
    })
}

fn certainty(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Documented => "documented",
        Certainty::Inferred => "inferred",
        Certainty::Ours => "ours",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Refused => "refused",
        Outcome::WentThrough => "went-through",
        Outcome::LandedLate => "landed-late",
        Outcome::NoAccess => "no-access",
    }
}

fn clue_kind(kind: ClueKind) -> &'static str {
    match kind {
        ClueKind::Raised => "irql-raised",
        ClueKind::QueueEnabled => "queue-enabled",
        ClueKind::Attached => "attached",
        ClueKind::Released => "released",
        ClueKind::UserMapped => "user-mapped",
        ClueKind::Locked => "locked",
        ClueKind::LockedForReading => "locked-for-reading",
        ClueKind::Claimed => "claimed",
    }
}

fn ownership(owner: Ownership) -> &'static str {
    match owner {
        Ownership::Never => "never",
        Ownership::Owned => "owned",
        Ownership::Freed => "freed",
        Ownership::Recycled => "recycled",
    }
}

fn reach(reach: Reach) -> &'static str {
    match reach {
        Reach::Mapped => "mapped",
        Reach::Unmapped => "unmapped",
        Reach::Identity => "identity",
        Reach::Never => "never",
        Reach::Unknown => "unknown",
    }
}

fn scope(scope: Scope) -> Value {
    match scope {
        Scope::Global => json!({"kind": "global"}),
        Scope::Domain(domain) => json!({"kind": "domain", "domain": domain}),
        Scope::Pages {
            domain,
            iova,
            count,
        } => json!({"kind": "pages", "domain": domain, "iova": hex(iova.0), "count": count}),
        Scope::ContextGlobal | Scope::ContextDomain(_) | Scope::ContextDevice(..) => {
            json!({"kind": "context"})
        }
    }
}

fn caller(found: &Found, id: u32) -> Value {
    stack(
        found
            .callers
            .get(&id)
            .map(Vec::as_slice)
            .unwrap_or_default(),
    )
}

/// A moment: time, event number, step and what belongs to that step.
fn history(found: &Found, moment: &Moment) -> Value {
    let name = |context: u32| found.commands.get(&context);
    let (step, mut more) = match &moment.step {
        Step::Allocated { allocation } => ("allocated", json!({"allocation": allocation.0})),
        Step::Freed { allocation } => ("freed", json!({"allocation": allocation.0})),
        Step::Recycled => ("recycled", json!({})),
        Step::MdlMapped { handle, stack: by } => (
            "mdl-mapped",
            json!({"handle": hex(*handle), "stack": caller(found, by.0)}),
        ),
        Step::MdlUnmapped { handle, stack: by } => (
            "mdl-unmapped",
            json!({"handle": hex(*handle), "stack": caller(found, by.0)}),
        ),
        Step::Mapped {
            domain,
            iova,
            read,
            write,
        } => (
            "mapped",
            json!({"domain": domain, "iova": hex(iova.0), "read": read, "write": write}),
        ),
        Step::Unmapped { domain, iova } => {
            ("unmapped", json!({"domain": domain, "iova": hex(iova.0)}))
        }
        Step::Invalidated {
            scope: of,
            drain_reads,
            drain_writes,
        } => (
            "invalidated",
            json!({"scope": scope(*of), "drain_reads": drain_reads, "drain_writes": drain_writes}),
        ),
        Step::Filled {
            domain,
            iova,
            generation,
        } => (
            "cached",
            json!({"domain": domain, "iova": hex(iova.0), "generation": generation}),
        ),
        Step::Accessed {
            context,
            write,
            count,
            last,
        } => (
            "accessed",
            json!({"context": context.0, "command": name(context.0), "write": write,
                "count": count, "last": last}),
        ),
        Step::Issued {
            context,
            write,
            token,
        } => (
            "issued",
            json!({"context": context.0, "command": name(context.0), "write": write,
                "token": token.0}),
        ),
        Step::Landed { token, drained } => {
            ("landed", json!({"token": token.0, "drained": drained}))
        }
        Step::Refused { context, write } => (
            "refused",
            json!({"context": context.0, "command": name(context.0), "write": write}),
        ),
    };
    if let Value::Object(fields) = &mut more {
        fields.insert("step".into(), step.into());
        fields.insert("time".into(), moment.time.into());
        fields.insert("event".into(), moment.event.into());
    }
    more
}
