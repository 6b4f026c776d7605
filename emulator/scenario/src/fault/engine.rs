//! Deciding, at each site, whether a fault is injected.

use super::{DEFAULT_DELAY, Descriptor, Direction, Fault, SiteKind, What, matches};

/// A site that is passed.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Which.
    pub kind: SiteKind,
    /// The routine that is called.
    pub function: Option<&'a str>,
    /// The command on whose behalf it is: a context's number.
    pub context: Option<u32>,
    /// The descriptor.
    pub descriptor: Option<Descriptor>,
    /// Device addresses, both ends included.
    pub iova: Option<(u64, u64)>,
    /// Does the access write?
    pub write: Option<bool>,
    /// The device's queue.
    pub queue: Option<u16>,
}

impl Site<'_> {
    /// A site of which nothing more is known.
    #[must_use]
    pub const fn new(kind: SiteKind) -> Self {
        Self {
            kind,
            function: None,
            context: None,
            descriptor: None,
            iova: None,
            write: None,
            queue: None,
        }
    }

    /// A device's access for a command, of `length` bytes.
    #[must_use]
    pub const fn of_access(
        kind: SiteKind,
        context: u32,
        iova: u64,
        length: u64,
        write: bool,
    ) -> Self {
        let last = iova.saturating_add(length.saturating_sub(1));
        Self {
            context: Some(context),
            iova: Some((iova, last)),
            write: Some(write),
            ..Self::new(kind)
        }
    }

    /// In words.
    pub(crate) fn words(&self, state: &FaultState) -> String {
        let mut words = self.kind.name().to_owned();
        let mut add = |word: &str| {
            words.push(' ');
            words.push_str(word);
        };
        if let Some(name) = self.function.or(state.call.as_deref()) {
            add(name);
        }
        if let Some(descriptor) = self.descriptor {
            add(descriptor.name());
        }
        if let Some(write) = self.write {
            add(if write { "write" } else { "read" });
        }
        if let Some(queue) = self.queue {
            add(&format!("queue {queue}"));
        }
        match self.iova {
            Some((first, last)) if first == last => add(&format!("{first:#x}")),
            Some((first, last)) => add(&format!("{first:#x}-{last:#x}")),
            None => {}
        }
        words
    }
}

/// A fault that is injected now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Which of the plan's, from 0.
    pub fault: u32,
    /// What is done.
    pub outcome: What,
    /// What a failing routine returns, if the plan says.
    pub status: Option<u32>,
    /// Most pages of a partial allocation.
    pub pages: u64,
    /// Virtual nanoseconds of a delay.
    pub ns: u64,
    /// Where a redirected access goes.
    pub to: u64,
}

/// What the memory that the current call gets must be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Most pages.
    pub most: Option<u64>,
    /// No two pages are neighbours.
    pub scattered: bool,
    /// All of it lies above 4 GiB.
    pub above_4g: bool,
}

/// How often a fault's site was passed, and how often it was injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// Sites that its filters let through, once it had begun.
    pub met: u64,
    /// Injections.
    pub fired: u64,
    /// Has what it comes after happened?
    begun: bool,
}

/// What changes of faults as a run goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FaultState {
    /// One for each fault of the plan.
    pub tallies: Vec<Tally>,
    /// No routine finds memory any more.
    pub low_memory: bool,
    /// The routine that the driver is in.
    pub call: Option<String>,
    /// Its stack.
    frames: Vec<u64>,
    /// It finds no memory.
    pub refused: bool,
    pub shape: Shape,
    /// The command that the device learnt last, and its context.
    pub command: Option<(u32, String)>,
    /// State of the generator of chance.
    pub chance: u64,
}

impl FaultState {
    pub fn new(faults: &[Fault], seed: u64) -> Self {
        Self {
            tallies: vec![Tally::default(); faults.len()],
            chance: seed ^ 0x5ca1_ab1e,
            ..Self::default()
        }
    }

    /// The driver calls a routine.
    pub fn begin_call(&mut self, name: &str, frames: &[u64]) {
        self.call = Some(name.to_owned());
        self.frames = frames.to_vec();
        self.refused = false;
        self.shape = Shape::default();
    }

    /// The routine is done.
    pub fn end_call(&mut self) {
        self.call = None;
        self.frames.clear();
        self.refused = false;
        self.shape = Shape::default();
    }

    /// A routine of this name began.
    pub fn occurred(&mut self, faults: &[Fault], name: &str) {
        for (fault, tally) in faults.iter().zip(&mut self.tallies) {
            if let Some(after) = &fault.after {
                tally.begun |= matches(after, name);
            }
        }
    }

    /// Is a fault injected at this site? All that could be are counted; the
    /// first of those that are due is.
    pub fn decide(
        &mut self,
        faults: &[Fault],
        site: &Site<'_>,
        now: u64,
        can: impl Fn(&Fault) -> bool,
    ) -> Option<Injection> {
        let mut found = None;
        for (index, fault) in faults.iter().enumerate() {
            if fault.at != site.kind || !can(fault) || !self.lets(fault, site) {
                continue;
            }
            let Some(tally) = self.tallies.get_mut(index) else {
                continue;
            };
            let inside = |(first, last)| (first..=last).contains(&now);
            if fault.after.is_some() && !tally.begun || !fault.window.is_none_or(inside) {
                continue;
            }
            tally.met += 1;
            let met = tally.met;
            let due = fault.nth.is_none_or(|nth| met == nth)
                && fault.every.is_none_or(|every| met.is_multiple_of(every))
                && fault.probability.is_none_or(|probability| {
                    draw(&mut self.chance) % 1_000_000 < u64::from(probability.0)
                });
            if due && found.is_none() {
                tally.fired += 1;
                found = Some(Injection {
                    fault: index as u32,
                    outcome: fault.outcome,
                    status: fault.status.map(|status| status.0),
                    pages: fault.pages.unwrap_or(1),
                    ns: fault.ns.unwrap_or(DEFAULT_DELAY),
                    to: fault.to.unwrap_or(0),
                });
            }
        }
        found
    }

    /// Do the filters of a fault let a site through, and can be done there
    /// what it does?
    fn lets(&self, fault: &Fault, site: &Site<'_>) -> bool {
        let function = site.function.or(self.call.as_deref());
        let named = |pattern: &Option<String>, name: Option<&str>| match (pattern, name) {
            (None, _) => true,
            (Some(pattern), Some(name)) => matches(pattern, name),
            (Some(_), None) => false,
        };
        let command = match (&self.command, site.context) {
            (Some((context, name)), Some(of)) if *context == of => Some(name.as_str()),
            _ => None,
        };
        let direction = |wanted| {
            site.write
                .is_some_and(|write| write == (wanted == Direction::Write))
        };
        let overlaps = |(first, last)| {
            site.iova
                .is_some_and(|(from, to)| first <= to && from <= last)
        };
        let called = || {
            let on = |frame: &u64| fault.callers.iter().any(|range| range.contains(frame));
            self.frames.iter().any(on)
        };
        named(&fault.function, function)
            && named(&fault.command, command)
            && fault
                .descriptor
                .is_none_or(|wanted| site.descriptor == Some(wanted))
            && fault.direction.is_none_or(direction)
            && fault.iova.is_none_or(overlaps)
            && fault.queue.is_none_or(|queue| site.queue == Some(queue))
            && (fault.caller.is_none() || called())
            && is_possible(fault.outcome, site)
    }
}

/// Can it be done there at all? What cannot is not counted either.
fn is_possible(outcome: What, site: &Site<'_>) -> bool {
    let pages = |(first, last): (u64, u64)| last / 4096 - first / 4096 + 1;
    match (site.kind, outcome) {
        (SiteKind::Descriptor, What::Delay) => site.descriptor != Some(Descriptor::Wait),
        (SiteKind::Descriptor, What::CompleteEarly) => site.descriptor == Some(Descriptor::Iotlb),
        // Of one page nothing less can be invalidated.
        (SiteKind::Descriptor, What::WrongGranularity) => {
            site.descriptor == Some(Descriptor::Iotlb)
                && site.iova.is_none_or(|range| pages(range) > 1)
        }
        (SiteKind::Access, What::Torn) => site.iova.is_some_and(|(first, last)| last > first),
        _ => true,
    }
}

/// splitmix64 (Steele, Lea and Flood, 2014).
pub(crate) fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
