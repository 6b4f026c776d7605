//! One finding in full.

use super::{Line, Page, Tone, breach, life, neighbours, stack};
use crate::model::{Found, Frame, Report};
use crate::remedy::remedy;
use crate::spec::bug_check_name;
use journal::event::{AllocationKind, Certainty, NO_QUEUE};
use ledger::spec::{fault_reason, is_iommu_fault};
use ledger::{
    AccessFacts, AllocationFacts, ClaimFacts, Command, Finding, Kind, Outcome, Party, QueueArea,
    span,
};

/// How a stack is drawn.
type DrawStack = fn(&mut Page, &[Frame], &str);

pub(crate) fn draw(page: &mut Page, report: &Report, index: usize) {
    let Some(found) = report.findings.get(index) else {
        return;
    };
    opening(page, report, index, found);
    for related in &found.finding.related {
        if let Some(other) = report.findings.get(*related) {
            let text = format!("{} (number {})", other.finding.kind.id(), related + 1);
            page.row("see also", Tone::Plain, &text);
        }
    }
    stacks(page, found, stack::draw);
    life::draw(page, found);
    neighbours::draw(page, found);
    page.blank();
    verdict(page, report, &found.finding);
}

/// The same in short, for a picture.
pub(crate) fn sketch(page: &mut Page, report: &Report, index: usize) {
    let Some(found) = report.findings.get(index) else {
        return;
    };
    opening(page, report, index, found);
    stacks(page, found, stack::sketch);
    life::draw(page, found);
    page.blank();
    verdict(page, report, &found.finding);
}

fn opening(page: &mut Page, report: &Report, index: usize, found: &Found) {
    let finding = &found.finding;
    let number = match report.findings.len() {
        1 => String::new(),
        many => format!("  ({} of {many})", index + 1),
    };
    let mut line = Line::new()
        .with(Tone::Bold, "==dmasan== ")
        .with(Tone::Bad, format!("ERROR: {}", finding.kind.id()));
    let routine = finding.breach.as_ref().and_then(|b| b.routine.as_ref());
    if let Some(access) = &finding.access {
        line = line.with(Tone::Bold, format!(" at IOVA {}", access.iova));
    } else if let Some(routine) = routine {
        line = line.with(Tone::Bold, format!(" in {routine}"));
    }
    page.push(line.with(Tone::Faint, number));
    headline(page, finding);
    page.blank();
    if let Some(access) = &finding.access {
        accessed(page, finding, access);
    }
    if let Some(facts) = &finding.breach {
        breach::draw(page, finding, facts);
    }
}

/// Who did what, in a sentence.
fn headline(page: &mut Page, finding: &Finding) {
    let of_pages = matches!(
        finding.kind,
        Kind::MappedAfterFree | Kind::MissingInvalidation
    );
    let count = match (&finding.access, finding.count) {
        (_, 0 | 1) => String::new(),
        (Some(_), count) if of_pages => format!(" ({count} pages of it)"),
        (access, count) => format!(
            " ({count} {}, the last at {})",
            if access.is_some() {
                "such accesses"
            } else {
                "times"
            },
            span(finding.last_time)
        ),
    };
    let text = match &finding.access {
        Some(access) if access.outcome == Outcome::NoAccess => {
            format!("For device {}, {}{count}.", access.device, finding.summary)
        }
        Some(access) => format!("Device {}: {}{count}.", access.device, finding.summary),
        None => {
            let routine = finding.breach.as_ref().and_then(|b| b.routine.as_deref());
            let mut summary = finding.summary.chars();
            // A routine is called as it is.
            let text = match routine {
                Some(routine) if finding.summary.starts_with(routine) => finding.summary.clone(),
                _ => {
                    let first = summary.next().into_iter().flat_map(char::to_uppercase);
                    first.chain(summary).collect()
                }
            };
            format!("{text}{count}.")
        }
    };
    page.wrapped(Line::plain("  "), 2, Tone::Bold, &text);
}

fn accessed(page: &mut Page, finding: &Finding, access: &AccessFacts) {
    let mut text = format!("IOVA {}", access.iova);
    match (access.outcome, access.page) {
        (Outcome::Refused, Some(_)) if finding.kind == Kind::DmaRawPhysicalAddress => {
            text.push_str(
                ", which no mapping leads from; it is the physical address of the memory",
            );
        }
        (_, None) => text.push_str(", which leads to no page"),
        (Outcome::Refused, Some(gpa)) => {
            text.push_str(&format!(", which led to physical {gpa}"));
        }
        (_, Some(gpa)) => text.push_str(&format!(" -> physical {gpa}")),
    }
    if let Some(domain) = access.domain {
        text.push_str(&format!(", domain {domain}"));
    }
    if let Some(generation) = access.generation {
        text.push_str(&format!(", mapping generation {generation}"));
    }
    page.row("address", Tone::Plain, &text);
    if let Some(command) = &access.command {
        page.row("command", Tone::Name, &command_words(command, access.area));
    }
    if let Some(area) = access.area
        && access.command.as_ref().is_none_or(|of| of.context.0 != 0)
    {
        let text = format!(
            "the address is in queue {}'s {}",
            area.queue,
            area.part.words()
        );
        page.row("queue", Tone::Warn, &text);
    }
    if let Some(allocation) = &finding.allocation {
        let text = allocation_words(allocation) + &more_words(finding);
        page.row("memory", Tone::Plain, &text);
    }
    if let Some(claim) = &finding.claim {
        page.row("memory", Tone::Plain, &claim_words(claim));
    }
    if let Some(mdl) = &access.mdl {
        let text = format!("MDL {:#x}, mapped with handle {:#x}", mdl.mdl, mdl.handle);
        page.row("by", Tone::Plain, &text);
    }
    if let Some(other) = &access.reused_by {
        let text = format!("by now part of {}", allocation_words(other));
        page.row("reused", Tone::Warn, &text);
    }
    match &access.refusal {
        Some(refusal) => {
            let recorded = if refusal.recorded {
                "in a fault record"
            } else {
                "lost to the guest: the fault records overflowed"
            };
            let reason = fault_reason(refusal.reason);
            let text = if is_iommu_fault(refusal.reason) {
                format!("fault reason {:#x}: {reason} ({recorded})", refusal.reason)
            } else {
                format!("was not asked, or let it pass: {reason}")
            };
            page.row("IOMMU", Tone::Plain, &text);
        }
        None if access.outcome == Outcome::Refused => {
            page.row(
                "IOMMU",
                Tone::Plain,
                "refused; no fault reason was recorded",
            );
        }
        None => {}
    }
}

fn command_words(command: &Command, area: Option<QueueArea>) -> String {
    if command.context.0 == 0 {
        return match area {
            Some(QueueArea { queue, part }) => {
                let part = part.words();
                format!("none: the device's own access to queue {queue}'s {part}")
            }
            None => "none: the device's own access to its rings".to_owned(),
        };
    }
    let mut text = match &command.name {
        Some(name) if command.detail.is_empty() => name.clone(),
        Some(name) => format!("{name} {}", command.detail),
        None => "not known yet: the device was still reading it".to_owned(),
    };
    let mut place = vec![format!("command {}", command.context.0)];
    if command.queue == Some(NO_QUEUE) {
        place.push("the device's own work, by no queue".to_owned());
    } else {
        place.extend(command.queue.map(|queue| format!("queue {queue}")));
        place.extend(command.position.map(|at| format!("ring index {at}")));
        place.extend(command.head.map(|head| format!("descriptor {head}")));
    }
    place.extend(command.answer.iter().map(|name| format!("answer {name}")));
    text.push_str(&format!(" ({})", place.join(", ")));
    text
}

fn maker(kind: AllocationKind) -> &'static str {
    match kind {
        AllocationKind::DxgkMdl => "DxgkCbAllocatePagesForMdl",
        AllocationKind::DxgkContiguous => "DxgkCbAllocateContiguousMemory",
        AllocationKind::MmMdl => "MmAllocatePagesForMdl",
        AllocationKind::MmContiguous => "MmAllocateContiguousMemory",
        AllocationKind::Pool => "pool",
        AllocationKind::FramebufferSave => "DxgkCbPinFrameBufferForSave",
        AllocationKind::HardwareReserved => "a range reserved by the hardware",
    }
}

/// How many other allocations the same happened to.
pub(crate) fn more_words(finding: &Finding) -> String {
    match finding.allocations {
        0 | 1 => String::new(),
        2 => "; and 1 more allocation, made in the same place".to_owned(),
        many => format!(
            "; and {} more allocations, made in the same place",
            many - 1
        ),
    }
}

pub(crate) fn allocation_words(allocation: &AllocationFacts) -> String {
    let mut text = format!("allocation {}", allocation.id.0);
    match allocation.page_index {
        Some(index) => text.push_str(&format!(
            ": page {} of {}",
            index.saturating_add(1),
            allocation.pages
        )),
        None => text.push_str(&format!(": {} pages", allocation.pages)),
    }
    text.push_str(&format!(", {}", maker(allocation.kind)));
    let address = match allocation.kind {
        AllocationKind::DxgkMdl | AllocationKind::MmMdl => "MDL",
        _ => "address",
    };
    text.push_str(&format!(", {address} {:#x}", allocation.address));
    if allocation.handle != 0 {
        text.push_str(&format!(", handle {:#x}", allocation.handle));
    }
    text
}

/// What the guest told of memory.
fn claim_words(claim: &ClaimFacts) -> String {
    let mut text = format!(
        "as the guest told: {:#x}, tag {:#x}",
        claim.cookie, claim.tag
    );
    text.push_str(&match claim.page_index {
        Some(index) => format!(", page {} of {}", index.saturating_add(1), claim.pages),
        None => format!(", {} pages", claim.pages),
    });
    let steps = [
        ("allocated", Some(claim.allocated)),
        ("given up", claim.retired),
        ("freed", claim.freed),
    ];
    for (what, time) in steps {
        if let Some(time) = time {
            text.push_str(&format!(", {what} at {}", span(time)));
        }
    }
    text
}

/// The title of a stack, or of an event that has none.
fn titled(page: &mut Page, title: &str, time: Option<u64>) {
    page.blank();
    let mut line = Line::new().with(Tone::Bold, format!("  {title}"));
    if let Some(time) = time {
        line = line.with(Tone::Faint, format!(" at {}", span(time)));
    }
    page.push(line);
}

/// Who submitted the command. The device's own looks at its rings nobody
/// submits, nor what it does by no queue: a vertical blank, an order.
fn submitted(page: &mut Page, command: &Command, used: &[Frame], draw: DrawStack) {
    if command.context.0 == 0 || command.queue == Some(NO_QUEUE) {
        return;
    }
    let time = command.submitted.as_ref().map(|place| place.time);
    // A guest under QEMU shows its doorbells, and none of its code.
    if time.is_some() && used.is_empty() {
        titled(page, "used: the doorbell of the command was rung", time);
        return;
    }
    titled(page, "used: the command was submitted here", time);
    draw(page, used, "no doorbell was seen for it");
}

fn stacks(page: &mut Page, found: &Found, draw: DrawStack) {
    let finding = &found.finding;
    if let Some(facts) = &finding.breach {
        let title = breach::place_words(finding.kind);
        titled(page, title, Some(facts.place.time));
        draw(page, &found.used, "none of the driver's code was running");
    }
    let access = finding.access.as_ref();
    if let Some(origin) = access.and_then(|access| access.origin.as_ref()) {
        let title = "the driver asked for the physical address here";
        titled(page, title, Some(origin.time));
        draw(page, &found.origin, "no stack was recorded");
    }
    let clues = |page: &mut Page| {
        for (clue, stack) in finding.clues.iter().zip(&found.clues) {
            titled(page, &clue.text, Some(clue.place.time));
            draw(page, stack, "no stack was recorded");
        }
    };
    // The address itself is what is wrong.
    let address_first = finding.kind == Kind::DmaInterruptRange;
    if address_first || finding.breach.is_some() {
        clues(page);
    }
    if let Some(command) = finding.command() {
        submitted(page, command, &found.used, draw);
    }
    if !address_first && finding.breach.is_none() {
        clues(page);
    }
    if let Some(mdl) = access.and_then(|access| access.mdl.as_ref()) {
        if let Some(unmapped) = &mdl.unmapped {
            titled(page, "unmapped for the device here", Some(unmapped.time));
            draw(page, &found.unmapped, "no stack was recorded");
        }
        titled(page, "mapped for the device here", Some(mdl.mapped.time));
        draw(page, &found.mapped, "no stack was recorded");
    }
    if let Some(allocation) = &finding.allocation {
        if let Some(freed) = &allocation.freed {
            titled(page, "freed here", Some(freed.time));
            draw(page, &found.freed, "no stack was recorded");
        }
        titled(page, "allocated here", Some(allocation.allocated.time));
        draw(page, &found.allocated, "no stack was recorded");
    }
    if let Some(other) = access.and_then(|access| access.reused_by.as_ref()) {
        titled(page, "allocated again here", Some(other.allocated.time));
        draw(page, &found.reused, "no stack was recorded");
    }
}

pub(crate) fn party(party: Party) -> &'static str {
    match party {
        Party::Driver => "the driver",
        Party::OperatingSystem => "the operating system",
        Party::Device => "the device or its IOMMU",
        Party::Injected => "what was injected",
    }
}

pub(crate) fn certainty(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Documented => "documented",
        Certainty::Inferred => "inferred from documents and public observations",
        Certainty::Ours => "our choice: the documents are silent",
    }
}

pub(crate) fn stop_words(code: u32, parameters: [u64; 4]) -> String {
    let [a, b, c, d] = parameters;
    let name = bug_check_name(code).map_or(String::new(), |name| format!(" {name}"));
    format!("bug check {code:#X}{name} ({a:#x}, {b:#x}, {c:#x}, {d:#x})").replace("0X", "0x")
}

fn verdict(page: &mut Page, report: &Report, finding: &Finding) {
    windows(page, finding);
    for (index, blame) in finding.blame.iter().enumerate() {
        let label = if index == 0 { "at fault" } else { "and" };
        let text = format!("{}: {}", party(blame.party), blame.reason);
        page.row(label, Tone::Plain, &text);
    }
    page.row("to mend", Tone::Good, remedy(finding));
    if let Some(command) = &report.meta.reproduce {
        page.command("repeat", command);
    }
}

fn windows(page: &mut Page, finding: &Finding) {
    let Some(stop) = &finding.stop else {
        match (&finding.access, &finding.breach) {
            (Some(access), _) => {
                page.row("Windows", Tone::Warn, unnoticed(finding.kind, access));
            }
            (None, Some(facts)) => breach::answer(page, finding.kind, facts),
            (None, None) => {}
        }
        return;
    };
    let seen = match (stop.seen, stop.continued) {
        (true, false) => "the run ended with it",
        (true, true) => "the run went on all the same (--keep-going)",
        (false, _) => "to be expected; this run did not see it",
    };
    let text = format!("{}; {seen}", stop_words(stop.code, stop.parameters));
    page.row("Windows", Tone::Bad, &text);
    // A broken rule has told its reason already.
    let text = match &finding.breach {
        Some(_) => certainty(stop.certainty).to_owned(),
        None => format!("{}: {}", certainty(stop.certainty), stop.reason),
    };
    page.row("", Tone::Faint, &text);
}

fn unnoticed(kind: Kind, access: &AccessFacts) -> &'static str {
    match access.outcome {
        Outcome::Refused if kind == Kind::ExclusiveAccessViolation => {
            "no fault was reported to it; while the device is in no domain, none need be"
        }
        Outcome::Refused => "no fault was reported to it",
        Outcome::NoAccess => "does not notice; the next access of the device goes through",
        _ if kind == Kind::ExclusiveAccessViolation => {
            "does not notice this time; where it changes the device's domain meanwhile, the access \
             is refused (bug check 0xE6) or goes to other memory"
        }
        _ if matches!(kind, Kind::DmaRawPhysicalAddress | Kind::DmaUnmapped) => {
            "does not notice: nothing is isolated here; with isolation the same access is refused \
             (bug check 0xE6)"
        }
        _ if access.reused_by.is_some() => {
            if access.write {
                "does not notice: no fault, no bug check; the memory of the page's new owner is \
                 overwritten"
            } else {
                "does not notice: no fault, no bug check; the device gets what the page's new owner \
                 keeps there"
            }
        }
        _ if access.write => {
            "does not notice: no fault, no bug check; the memory of whoever has the page next is \
             overwritten"
        }
        _ => {
            "does not notice: no fault, no bug check; the device gets what whoever has the page \
             next keeps there"
        }
    }
}
