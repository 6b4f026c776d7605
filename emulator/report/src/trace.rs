//! The journal as a person reads it: what driver, Windows and device did, in
//! virtual time, indented by who called whom.
//!
//! Left out is what the ledger needs and a reader drowns in: table entries,
//! registers, single accesses, polls, random bytes. A choice is shown if it
//! was not the default one.

use crate::clean::clean_short;
use crate::layout::stack;
use crate::spec::bug_check_name;
use journal::Record;
use journal::event::{
    AllocationKind, ClaimStep, End, Event, NameId, Point, Scope, StackId, TrapKind,
};
use journal::status_name;
use ledger::span;
use ledger::spec::fault_reason;
use std::collections::{BTreeMap, BTreeSet};
use symbols::Symbolizer;

/// Columns of a line.
pub const MAX_WIDTH: usize = 160;
/// Characters of a name.
const MAX_NAME: usize = 80;
/// Characters of a place in a source file.
const MAX_PLACE: usize = 120;
/// Lines of one text that the driver printed.
const MAX_PRINTED: usize = 8;
/// Arguments of a call.
const MAX_ARGUMENTS: usize = 8;
/// Calls within calls that are told apart.
const MAX_DEPTH: usize = 256;
/// Calls within calls that are indented.
const MAX_INDENT: usize = 16;

/// The lines of a trace, without line feeds, each of at most [`MAX_WIDTH`]
/// characters and without control characters.
pub fn lines<'a>(
    records: &'a [Record],
    symbols: &'a Symbolizer,
) -> impl Iterator<Item = String> + 'a {
    let mut trace = Trace {
        symbols,
        names: BTreeMap::new(),
        stacks: BTreeMap::new(),
        open: Vec::new(),
        pending: None,
    };
    let ends = std::iter::once(None);
    records
        .iter()
        .map(Some)
        .chain(ends)
        .flat_map(move |record| match record {
            Some(record) => trace.record(record),
            None => trace.flush().into_iter().collect(),
        })
}

/// A call that is not told yet: if it returns at once, call and result are
/// one line.
struct Pending {
    function: NameId,
    line: String,
}

struct Trace<'a> {
    symbols: &'a Symbolizer,
    names: BTreeMap<NameId, &'a str>,
    stacks: BTreeMap<StackId, &'a [u64]>,
    /// Routines that have not returned: of the driver (true) or of Windows.
    open: Vec<(bool, NameId)>,
    pending: Option<Pending>,
}

impl<'a> Trace<'a> {
    fn name(&self, id: NameId) -> String {
        let name = self.names.get(&id).copied().unwrap_or("?");
        clean_short(name, MAX_NAME)
    }

    /// Where a stack's innermost line is, to follow something.
    fn at(&self, id: StackId) -> String {
        let Some(frames) = self.stacks.get(&id) else {
            return String::new();
        };
        let innermost = frames.get(..frames.len().min(1)).unwrap_or_default();
        let frames = crate::build::describe(self.symbols, innermost);
        let place = stack::telling(&[&frames], &BTreeSet::new());
        place.map_or_else(String::new, |place| {
            format!("  at{}", clean_short(&place, MAX_PLACE))
        })
    }

    /// Close the innermost open routine of that name and all within it; with
    /// several threads routines may end in another order than they began.
    fn close(&mut self, driver: bool, name: NameId) {
        let found = self.open.iter().rposition(|open| *open == (driver, name));
        if let Some(at) = found {
            self.open.truncate(at);
        }
    }

    fn open(&mut self, driver: bool, name: NameId) {
        if self.open.len() < MAX_DEPTH {
            self.open.push((driver, name));
        }
    }

    fn line(&self, time: u64, text: &str) -> String {
        let indent = "  ".repeat(self.open.len().min(MAX_INDENT));
        let line = format!("{:>12}  {indent}{text}", span(time));
        if line.chars().count() <= MAX_WIDTH {
            return line;
        }
        let mut line: String = line.chars().take(MAX_WIDTH - 3).collect();
        line.push_str("...");
        line
    }

    fn flush(&mut self) -> Option<String> {
        let pending = self.pending.take()?;
        self.open(false, pending.function);
        Some(pending.line)
    }

    fn record(&mut self, record: &'a Record) -> Vec<String> {
        let time = record.time;
        match &record.event {
            Event::Name { id, text } => {
                self.names.insert(*id, text);
                return Vec::new();
            }
            Event::Stack { id, frames } => {
                self.stacks.insert(*id, frames);
                return Vec::new();
            }
            Event::Return { function, value } => return self.returned(time, *function, *value),
            _ => {}
        }
        let texts = self.texts(&record.event);
        if texts.is_empty() {
            return texts;
        }
        let mut lines: Vec<String> = self.flush().into_iter().collect();
        match &record.event {
            Event::Call { function, .. } => {
                self.pending = texts.first().map(|text| Pending {
                    function: *function,
                    line: self.line(time, text),
                });
                return lines;
            }
            Event::Leave { routine, .. } => self.close(true, *routine),
            // The run is over, whatever was open.
            Event::End(_) => self.open.clear(),
            _ => {}
        }
        lines.extend(texts.iter().map(|text| self.line(time, text)));
        if let Event::Enter { routine, .. } = &record.event {
            self.open(true, *routine);
        }
        lines
    }

    fn returned(&mut self, time: u64, function: NameId, value: u64) -> Vec<String> {
        match self.pending.take() {
            Some(Pending { function: of, line }) if of == function => {
                let result = format!(" = {}", result(value));
                let length = line.chars().count() + result.chars().count();
                if length <= MAX_WIDTH {
                    return vec![line + &result];
                }
                let text = format!("{} = {}", self.name(function), self::result(value));
                return vec![line, self.line(time, &text)];
            }
            other => self.pending = other,
        }
        let mut lines: Vec<String> = self.flush().into_iter().collect();
        self.close(false, function);
        let text = format!("{} = {}", self.name(function), result(value));
        lines.push(self.line(time, &text));
        lines
    }

    /// What an event is called; nothing if it is not shown.
    fn texts(&self, event: &Event) -> Vec<String> {
        let text = match event {
            Event::Begin(begin) => format!(
                "dmasan {}: {}, {} domain, seed {}",
                clean_short(&begin.version, MAX_NAME),
                clean_short(&begin.driver, MAX_NAME),
                clean_short(&begin.domain, MAX_NAME),
                begin.seed
            ),
            Event::Module(module) => format!(
                "image {} at {:#x}, {:#x} bytes",
                clean_short(&module.name, MAX_NAME),
                module.base,
                module.size
            ),
            Event::Call {
                function,
                arguments,
                irql,
                thread,
                ..
            } => format!(
                "{}({}){}",
                self.name(*function),
                list(arguments),
                context(*irql, *thread)
            ),
            Event::Enter {
                routine,
                arguments,
                irql,
                thread,
                ..
            } => format!(
                "-> {}({}){}",
                self.name(*routine),
                list(arguments),
                context(*irql, *thread)
            ),
            Event::Leave { routine, value } => {
                format!("<- {} = {}", self.name(*routine), result(*value))
            }
            Event::DebugPrint { text } => return printed(text),
            Event::Note { text } => format!("note: {}", clean_short(text, MAX_WIDTH)),
            Event::Trap {
                kind: TrapKind::PageFault | TrapKind::Exception,
                address,
                stack,
                ..
            } => format!("exception: {address:#x}{}", self.at(*stack)),
            Event::Choice {
                number,
                point,
                options,
                taken,
            } if *taken != 0 && *point != Point::Random => {
                let point = format!("{point:?}").to_lowercase();
                format!("choice {number} ({point}): {taken} of {options}")
            }
            Event::Injected {
                name,
                site,
                outcome,
                ..
            } => format!(
                "INJECTED {}: {outcome} at {}",
                clean_short(name, MAX_NAME),
                clean_short(site, MAX_NAME)
            ),
            Event::BugCheck(stop) => format!(
                "BUG CHECK {:#x} {} ({}): {}{}",
                stop.code,
                bug_check_name(stop.code).unwrap_or_default(),
                list(&stop.parameters),
                clean_short(&stop.reason, MAX_NAME),
                self.at(stop.stack)
            ),
            Event::Breach(breach) => format!(
                "BREACH {} ({}): {}{}",
                clean_short(&breach.finding, MAX_NAME),
                clean_short(&breach.rule, MAX_NAME),
                clean_short(&breach.reason, MAX_NAME),
                self.at(breach.stack)
            ),
            Event::Refused { step, status } => format!(
                "REFUSED step {}: {}",
                clean_short(step, MAX_NAME),
                result(u64::from(*status))
            ),
            Event::Caps { memory } => format!("caps: memory {memory:#x}"),
            Event::ExclusiveAccess { begun } => {
                let what = if *begun { "begins" } else { "ends" };
                format!("exclusive access {what}")
            }
            Event::MapMdl(mapping) => format!(
                "+ MDL {:#x} mapped for the device, handle {:#x}{}",
                mapping.mdl,
                mapping.handle,
                self.at(mapping.stack)
            ),
            Event::UnmapMdl { handle, stack } => {
                format!("- MDL unmapped, handle {handle:#x}{}", self.at(*stack))
            }
            Event::Physical {
                address,
                gpa,
                stack,
            } => {
                format!("physical address of {address:#x}: {gpa}{}", self.at(*stack))
            }
            Event::Allocate(allocation) => {
                let kind = match allocation.kind {
                    AllocationKind::DxgkMdl | AllocationKind::MmMdl => "MDL",
                    AllocationKind::DxgkContiguous | AllocationKind::MmContiguous => "contiguous",
                    AllocationKind::Pool => "pool",
                    AllocationKind::FramebufferSave => "frame buffer save",
                    AllocationKind::HardwareReserved => "hardware reserved",
                };
                let pages = allocation.pages.iter();
                let pages = pages.fold(0u64, |sum, run| sum.saturating_add(run.count));
                let part = if allocation.requested > pages {
                    format!(" of {}", allocation.requested)
                } else {
                    String::new()
                };
                format!(
                    "+ allocation {}: {pages}{part} {}, {kind} {:#x}{}",
                    allocation.id.0,
                    if pages == 1 { "page" } else { "pages" },
                    allocation.address,
                    self.at(allocation.stack)
                )
            }
            Event::Claim(claim) => {
                let pages = claim.pages.iter();
                let pages = pages.fold(0u64, |sum, run| sum.saturating_add(run.count));
                let cookie = claim.cookie;
                match claim.step {
                    ClaimStep::Allocated => format!(
                        "guest: {cookie:#x} allocated, {pages} pages, tag {:#x}",
                        claim.tag
                    ),
                    ClaimStep::Extended => format!("guest: {cookie:#x} has {pages} pages more"),
                    ClaimStep::Retired => format!("guest: {cookie:#x} is given up"),
                    ClaimStep::Freed => format!("guest: {cookie:#x} is freed"),
                    ClaimStep::Forgotten => "guest: all that it told is void".to_owned(),
                }
            }
            Event::Free { allocation, stack } => {
                format!("- allocation {} freed{}", allocation.0, self.at(*stack))
            }
            Event::Invalidate {
                scope,
                drain_reads,
                drain_writes,
                dropped,
            } => format!(
                "iommu: invalidate {}{}{}, {dropped} entries dropped",
                scope_words(*scope),
                if *drain_reads { ", reads drained" } else { "" },
                if *drain_writes {
                    ", writes drained"
                } else {
                    ""
                },
            ),
            Event::Notify {
                queue, available, ..
            } => match available {
                Some(index) => format!("doorbell: queue {queue}, available index {index}"),
                None => format!("doorbell: queue {queue}"),
            },
            Event::Command {
                context,
                name,
                detail,
                ..
            } => format!(
                "gpu #{}: {} {}",
                context.0,
                self.name(*name),
                clean_short(detail, MAX_NAME)
            ),
            Event::Response { context, name, .. } => {
                format!("gpu #{} = {}", context.0, self.name(*name))
            }
            Event::Fault {
                context,
                device,
                iova,
                write,
                reason,
                ..
            } => format!(
                "FAULT {device} gpu #{}: {} of {iova} refused: {} ({reason:#x})",
                context.0,
                if *write { "write" } else { "read" },
                fault_reason(*reason)
            ),
            Event::Landed { token, drained } => format!(
                "access in flight {} landed{}",
                token.0,
                if *drained { " (drained)" } else { "" }
            ),
            Event::Cancelled { token } => format!("access in flight {} cancelled", token.0),
            Event::Message { data, refused, .. } => match refused {
                Some(why) => format!("interrupt {data:#x} lost: {}", self.name(*why)),
                None => format!("interrupt {data:#x}"),
            },
            Event::DeviceState { device, state } => {
                format!("device {device}: {}", self.name(*state))
            }
            Event::Flush {
                scanout,
                width,
                height,
                crc,
            } => format!("frame: scanout {scanout}, {width}x{height}, CRC {crc:08x}"),
            Event::End(end) => self.end(end),
            _ => return Vec::new(),
        };
        vec![text.trim_end().to_owned()]
    }

    fn end(&self, end: &End) -> String {
        match end {
            End::Completed => "end: completed".to_owned(),
            End::StartFailed { routine, status } => format!(
                "end: {} returned {status:#010x}",
                clean_short(routine, MAX_NAME)
            ),
            End::BugCheck => "end: bug check".to_owned(),
            End::Hang { reason, stack } | End::OutOfTime { reason, stack } => {
                let reason = clean_short(reason, MAX_NAME);
                format!("end: hang: {reason}{}", self.at(*stack))
            }
            End::Unsupported { reason, stack } => {
                let reason = clean_short(reason, MAX_NAME);
                format!("end: unsupported: {reason}{}", self.at(*stack))
            }
            End::Interrupted => "end: interrupted".to_owned(),
        }
    }
}

/// The lines of what the driver printed.
fn printed(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .take(MAX_PRINTED)
        .map(|line| format!("| {}", clean_short(line, MAX_WIDTH)))
        .collect();
    if text.lines().nth(MAX_PRINTED).is_some() {
        lines.push("| ...".to_owned());
    }
    lines
}

fn list(values: &[u64]) -> String {
    let mut list: Vec<String> = values
        .iter()
        .take(MAX_ARGUMENTS)
        .map(|value| format!("{value:#x}"))
        .collect();
    if values.len() > MAX_ARGUMENTS {
        list.push("...".to_owned());
    }
    list.join(", ")
}

/// IRQL and thread, where they are not the usual ones.
fn context(irql: u8, thread: u32) -> String {
    let irql = match irql {
        0 => String::new(),
        irql => format!("  irql {irql}"),
    };
    let thread = match thread {
        0 => String::new(),
        thread => format!("  thread {thread}"),
    };
    irql + &thread
}

/// What a routine returned; a failure by its name, if it has one. A routine
/// that returns an NTSTATUS may leave anything in the upper half of RAX.
fn result(value: u64) -> String {
    let status = value as u32;
    match status_name(status) {
        Some(name) if status >> 31 == 1 => format!("{status:#x} {name}"),
        _ => format!("{value:#x}"),
    }
}

fn scope_words(scope: Scope) -> String {
    match scope {
        Scope::ContextGlobal => "all contexts".to_owned(),
        Scope::ContextDomain(domain) => format!("contexts of domain {domain}"),
        Scope::ContextDevice(domain, device) => format!("context of {device} in domain {domain}"),
        Scope::Global => "all".to_owned(),
        Scope::Domain(domain) => format!("domain {domain}"),
        Scope::Pages {
            domain,
            iova,
            count,
        } => format!("domain {domain}, {count} pages from {iova}"),
    }
}
