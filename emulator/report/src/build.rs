//! From events to a report.

use crate::clean::clean_short;
use crate::layout::stack::shown;
use crate::model::{Ending, Found, Frame, Live, Meta, Printed, Report, Stopped};
use journal::Record;
use journal::event::{Begin, BugCheck, End, Event, ORDERED, StackId};
use journal::status_name;
use ledger::{Finding, Ledger, Place, Step};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use symbols::Symbolizer;

/// Most notes told.
const MAX_NOTES: usize = 16;
/// Lines of the driver's that a report keeps.
const MAX_PRINTED: usize = 12;
/// Bug checks that a report keeps.
const MAX_STOPS: usize = 64;
/// Live allocations that a report keeps.
const MAX_LIVE: usize = 16;
/// Lines of a stack.
const MAX_FRAMES: usize = 32;
/// Stacks that are looked at for who calls whom, and addresses of each.
const MAX_STACKS: usize = 2048;
const MAX_NEAR: usize = 6;
/// Functions of other files that make a source file a layer.
const LAYER: usize = 3;
/// Characters of a reason: what happened, the rule and its source.
const MAX_REASON: usize = 1000;
/// Characters of a name, path or printed line.
const MAX_TEXT: usize = 400;

impl Report {
    /// Run the ledger over `records` and describe what it finds.
    #[must_use]
    pub fn build(records: &[Record], symbols: &Symbolizer, meta: Meta) -> Self {
        let mut ledger = Ledger::new();
        for record in records {
            ledger.push(record);
        }
        Self::of(&ledger, records, symbols, meta)
    }

    /// The report of a ledger that has seen `records` already.
    #[must_use]
    pub fn of(ledger: &Ledger, records: &[Record], symbols: &Symbolizer, meta: Meta) -> Self {
        let mut report = Self {
            meta: Meta {
                reproduce: meta.reproduce.as_deref().map(text),
                tail: meta.tail,
            },
            facts: ledger.facts().clone(),
            ..Self::default()
        };
        let stack = |place: &Place| describe(symbols, &place.stack);
        for finding in ledger.findings() {
            let allocation = finding.allocation.as_ref();
            let access = finding.access.as_ref();
            let mdl = access.and_then(|access| access.mdl.as_ref());
            let of = |place: Option<&Place>| place.map(stack).unwrap_or_default();
            report.findings.push(Found {
                used: of(finding.used()),
                freed: of(allocation.and_then(|a| a.freed.as_ref())),
                allocated: of(allocation.map(|a| &a.allocated)),
                reused: of(access
                    .and_then(|access| access.reused_by.as_ref())
                    .map(|a| &a.allocated)),
                origin: of(access.and_then(|access| access.origin.as_ref())),
                mapped: of(mdl.map(|mdl| &mdl.mapped)),
                unmapped: of(mdl.and_then(|mdl| mdl.unmapped.as_ref())),
                clues: finding
                    .clues
                    .iter()
                    .map(|clue| stack(&clue.place))
                    .collect(),
                commands: BTreeMap::new(),
                callers: BTreeMap::new(),
                finding: cleaned(finding),
            });
        }
        report.live = ledger
            .live(MAX_LIVE)
            .into_iter()
            .map(|allocation| Live {
                stack: stack(&allocation.allocated),
                allocation,
            })
            .collect();
        let moved = fold(&mut report.findings);
        let cause = |number| moved.get(ledger.cause(number)?).copied();
        report.scan(cause, records, symbols);
        if !report.findings.is_empty() {
            report.layers = layers(records, symbols);
        }
        report.name_commands(records);
        report
    }

    /// What the ledger does not keep.
    fn scan(
        &mut self,
        cause: impl Fn(u32) -> Option<usize>,
        records: &[Record],
        symbols: &Symbolizer,
    ) {
        let mut printed = VecDeque::new();
        let mut stacks = BTreeMap::<StackId, &[u64]>::new();
        for (number, record) in (1u32..).zip(records) {
            match &record.event {
                Event::Begin(begin) if self.begin.is_none() => {
                    self.begin = Some(cleaned_begin(begin));
                }
                Event::Stack { id, frames } => {
                    stacks.insert(*id, frames);
                }
                Event::DebugPrint { text: line } => {
                    if printed.len() == MAX_PRINTED {
                        printed.pop_front();
                    }
                    printed.push_back((record.time, line));
                }
                Event::Note { text: note } if self.notes.len() < MAX_NOTES => {
                    self.notes.push(text(note));
                }
                Event::Refused { step, status } => {
                    self.refused = true;
                    if self.notes.len() < MAX_NOTES {
                        self.notes.push(refusal(step, *status));
                    }
                }
                Event::BugCheck(_) if self.stops.len() >= MAX_STOPS => {
                    self.omitted_stops.insert(cause(number));
                }
                Event::BugCheck(stop) => {
                    let frames = stacks.get(&stop.stack).copied().unwrap_or_default();
                    self.stops.push(Stopped {
                        time: record.time,
                        stack: describe(symbols, frames),
                        finding: cause(number),
                        bug_check: BugCheck {
                            reason: clean_short(&stop.reason, MAX_REASON),
                            rule: stop.rule.as_deref().map(text),
                            finding: stop.finding.as_deref().map(text),
                            ..stop.clone()
                        },
                    });
                }
                Event::End(end) => {
                    let stack = |id: &StackId| {
                        describe(symbols, stacks.get(id).copied().unwrap_or_default())
                    };
                    self.ending = match end {
                        End::Completed => Ending::Completed,
                        End::StartFailed { routine, status } => Ending::StartFailed {
                            routine: text(routine),
                            status: *status,
                        },
                        End::BugCheck => Ending::BugCheck,
                        End::Hang { reason, stack: id } | End::OutOfTime { reason, stack: id } => {
                            Ending::Hang {
                                reason: text(reason),
                                stack: stack(id),
                            }
                        }
                        End::Unsupported { reason, stack: id } => Ending::Unsupported {
                            reason: text(reason),
                            stack: stack(id),
                        },
                        End::Interrupted => Ending::Interrupted,
                    };
                }
                _ => {}
            }
        }
        for found in &mut self.findings {
            for moment in &found.finding.history.moments {
                if let Step::MdlMapped { stack, .. } | Step::MdlUnmapped { stack, .. } = moment.step
                    && let Some(frames) = stacks.get(&stack)
                {
                    let innermost = frames.get(..frames.len().min(1)).unwrap_or_default();
                    let frames = describe(symbols, innermost);
                    found.callers.insert(stack.0, frames);
                }
            }
        }
        self.printed = printed
            .into_iter()
            .map(|(time, line)| Printed {
                time,
                text: text(line.trim_end()),
            })
            .collect();
    }

    /// Names of the commands that histories speak of.
    fn name_commands(&mut self, records: &[Record]) {
        let contexts = |found: &Found| -> Vec<u32> {
            let moments = &found.finding.history.moments;
            moments
                .iter()
                .filter_map(|moment| match moment.step {
                    Step::Accessed { context, .. }
                    | Step::Issued { context, .. }
                    | Step::Refused { context, .. } => Some(context.0),
                    _ => None,
                })
                .collect()
        };
        let wanted: BTreeSet<u32> = self.findings.iter().flat_map(contexts).collect();
        if wanted.is_empty() {
            return;
        }
        let mut names = BTreeMap::new();
        let mut commands = BTreeMap::new();
        for record in records {
            match &record.event {
                Event::Name { id, text } => {
                    names.insert(*id, text.as_str());
                }
                Event::Command { context, name, .. } if wanted.contains(&context.0) => {
                    commands.insert(
                        context.0,
                        text(names.get(name).copied().unwrap_or_default()),
                    );
                }
                _ => {}
            }
        }
        for found in &mut self.findings {
            for context in contexts(found) {
                if let Some(name) = commands.get(&context) {
                    found.commands.insert(context, name.clone());
                }
            }
        }
    }
}

/// A step of the workload that the driver refused, in words.
fn refusal(step: &str, status: u32) -> String {
    let name = status_name(status).map_or(String::new(), |name| format!(" ({name})"));
    format!(
        "the driver refused step {} of the workload with {status:#010x}{name}: the steps after it \
         were not run",
        text(step)
    )
}

fn text(text: &str) -> String {
    clean_short(text, MAX_TEXT)
}

fn cleaned(finding: &Finding) -> Finding {
    let mut finding = finding.clone();
    let access = finding.access.as_mut();
    if let Some(command) = access.and_then(|access| access.command.as_mut()) {
        command.name = command.name.as_deref().map(text);
        command.answer = command.answer.as_deref().map(text);
        command.detail = text(&command.detail);
    }
    if let Some(stop) = &mut finding.stop {
        stop.reason = clean_short(&stop.reason, MAX_REASON);
    }
    if let Some(breach) = &mut finding.breach {
        breach.rule = breach.rule.as_deref().map(text);
        breach.routine = breach.routine.as_deref().map(text);
        breach.reason = clean_short(&breach.reason, MAX_REASON);
    }
    for clue in &mut finding.clues {
        clue.text = text(&clue.text);
    }
    finding.summary = text(&finding.summary);
    finding
}

fn cleaned_begin(begin: &Begin) -> Begin {
    Begin {
        version: text(&begin.version),
        driver: text(&begin.driver),
        domain: text(&begin.domain),
        scenario: text(&begin.scenario),
        settings: begin
            .settings
            .iter()
            .take(64)
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
        ..begin.clone()
    }
}

/// Source files that three or more functions of other files call into, by the
/// stacks of the run.
fn layers(records: &[Record], symbols: &Symbolizer) -> BTreeSet<String> {
    let mut callers = BTreeMap::<String, BTreeSet<String>>::new();
    let stacks = records.iter().filter_map(|record| match &record.event {
        Event::Stack { frames, .. } => Some(frames),
        _ => None,
    });
    for stack in stacks.take(MAX_STACKS) {
        let near = stack.get(..stack.len().min(MAX_NEAR)).unwrap_or_default();
        let frames = describe(symbols, near);
        let placed = |frame: &Frame| Some((frame.file.clone()?, frame.function.clone()?));
        let places: Vec<(String, String)> = shown(&frames).map_while(placed).collect();
        for pair in places.windows(2) {
            if let [(file, _), (other, caller)] = pair
                && file != other
            {
                let known = callers.entry(file.clone()).or_default();
                if known.len() < LAYER {
                    known.insert(caller.clone());
                }
            }
        }
    }
    let layers = callers
        .into_iter()
        .filter(|(_, known)| known.len() >= LAYER);
    layers.map(|(file, _)| file).collect()
}

/// What makes findings one for a reader, beyond what the ledger can tell: the
/// lines on their stacks. A compiler may make several calls of one.
fn likeness(found: &Found) -> String {
    let finding = &found.finding;
    let mut key = finding.kind.id().to_owned();
    if let Some(breach) = &finding.breach {
        let (rule, routine) = (&breach.rule, &breach.routine);
        key.push_str(&format!(" {rule:?} {routine:?}"));
        // Where no code of the driver's ran, the thing itself tells them apart.
        if found.used.is_empty() {
            key.push_str(&format!(" {:#x}", breach.address));
        }
    }
    // An order is nobody's code, and says itself what it was.
    if let Some(command) = finding.command()
        && command.name.as_deref() == Some(ORDERED)
    {
        key.push_str(&format!(" {}", command.detail));
    }
    if let Some(of) = &finding.allocation
        && found.allocated.is_empty()
    {
        key.push_str(&format!(" {}", of.id.0));
    }
    for stack in [&found.used, &found.freed, &found.allocated] {
        key.push_str("\n-");
        for frame in stack {
            match (&frame.function, frame.line) {
                (Some(function), Some(line)) => key.push_str(&format!("\n{function}:{line}")),
                _ => key.push_str(&format!("\n{:#x}", frame.address)),
            }
        }
    }
    key
}

/// Make one of findings that are alike; returns each one's new index.
pub(crate) fn fold(findings: &mut Vec<Found>) -> Vec<usize> {
    let mut first = BTreeMap::<String, usize>::new();
    let mut moved = Vec::new();
    let mut kept: Vec<Found> = Vec::new();
    for found in std::mem::take(findings) {
        let place = *first.entry(likeness(&found)).or_insert(kept.len());
        moved.push(place);
        let Some(known) = kept.get_mut(place) else {
            kept.push(found);
            continue;
        };
        let (known, other) = (&mut known.finding, found.finding);
        known.count = known.count.saturating_add(other.count);
        known.allocations = known.allocations.saturating_add(other.allocations);
        known.last_time = known.last_time.max(other.last_time);
        known.related.extend(other.related);
        let seen = |stop: &Option<ledger::Stop>| stop.as_ref().is_some_and(|stop| stop.seen);
        if !seen(&known.stop) && seen(&other.stop) {
            known.stop = other.stop;
        }
    }
    for (index, found) in kept.iter_mut().enumerate() {
        let related = std::mem::take(&mut found.finding.related);
        let mut related: Vec<usize> = related
            .iter()
            .filter_map(|of| moved.get(*of).copied())
            .filter(|of| *of != index)
            .collect();
        related.sort_unstable();
        related.dedup();
        found.finding.related = related;
    }
    *findings = kept;
    moved
}

/// A stack, a line for each function; without symbols for each address.
pub(crate) fn describe(symbols: &Symbolizer, stack: &[u64]) -> Vec<Frame> {
    let addresses = stack.get(..stack.len().min(MAX_FRAMES)).unwrap_or_default();
    let mut frames = Vec::new();
    for described in symbols.describe_stack(addresses) {
        let module = described.module.as_deref().map(text);
        if described.frames.is_empty() {
            frames.push(Frame {
                address: described.address,
                module,
                offset: described.rva,
                ..Frame::default()
            });
            continue;
        }
        for frame in described.frames.iter().take(MAX_FRAMES) {
            frames.push(Frame {
                address: described.address,
                module: module.clone(),
                function: Some(text(&frame.function)),
                offset: frame.offset.into(),
                file: frame.file.as_deref().map(text),
                line: frame.line,
                inlined: frame.inlined,
            });
        }
    }
    frames.truncate(MAX_FRAMES);
    frames
}
