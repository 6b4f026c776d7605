//! Runs of accesses: a device that reads a picture page by page makes hundreds
//! of them that differ in little. In a run the first stands whole, and of each
//! further one only what is not as the one before it lets expect. A reader
//! gets every access as it was.

use crate::event::{ContextId, Event, Outcome, Record};
use memory::{Gpa, Iova, RequesterId};
use serde::{Deserialize, Serialize};

/// Most accesses in a run: what a cut file loses at most.
const MAX_STEPS: usize = 1024;

/// Accesses at one time, for one command, in one direction, that were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    first: Record,
    more: Vec<Step>,
    /// The last one.
    #[serde(skip)]
    last: Place,
}

/// How an access differs from one that goes on where the last ended, with as
/// many bytes, by the same mapping. Sums wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    iova: i64,
    length: i32,
    gpa: i64,
    generation: i32,
}

/// What differs from access to access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    iova: u64,
    length: u32,
    gpa: u64,
    generation: u32,
}

impl Place {
    fn of(event: &Event) -> Option<Self> {
        let Event::Access {
            iova,
            length,
            outcome: Outcome::Done {
                gpa, generation, ..
            },
            ..
        } = event
        else {
            return None;
        };
        Some(Self {
            iova: iova.0,
            length: *length,
            gpa: gpa.0,
            generation: *generation,
        })
    }

    /// The same access at another place.
    fn put(self, event: &mut Event) {
        if let Event::Access {
            iova,
            length,
            outcome: Outcome::Done {
                gpa, generation, ..
            },
            ..
        } = event
        {
            *iova = Iova(self.iova);
            *length = self.length;
            *gpa = Gpa(self.gpa);
            *generation = self.generation;
        }
    }

    fn to(self, next: Self) -> Step {
        let length = u64::from(self.length);
        let expected = |from: u64| from.wrapping_add(length);
        Step {
            iova: next.iova.wrapping_sub(expected(self.iova)) as i64,
            length: next.length.wrapping_sub(self.length) as i32,
            gpa: next.gpa.wrapping_sub(expected(self.gpa)) as i64,
            generation: next.generation.wrapping_sub(self.generation) as i32,
        }
    }

    fn step(self, step: Step) -> Self {
        let length = u64::from(self.length);
        let moved = |from: u64, by: i64| from.wrapping_add(length).wrapping_add_signed(by);
        Self {
            iova: moved(self.iova, step.iova),
            length: self.length.wrapping_add_signed(step.length),
            gpa: moved(self.gpa, step.gpa),
            generation: self.generation.wrapping_add_signed(step.generation),
        }
    }
}

/// Are they one access at two places?
fn alike(one: &Record, other: &Record) -> bool {
    type Rest = (ContextId, RequesterId, bool, bool);
    let rest = |event: &Event| -> Option<Rest> {
        match *event {
            Event::Access {
                context,
                device,
                write,
                outcome: Outcome::Done { cached, .. },
                ..
            } => Some((context, device, write, cached)),
            _ => None,
        }
    };
    one.time == other.time && rest(&one.event) == rest(&other.event)
}

impl Run {
    /// A run may begin with an access that was made.
    pub fn begin(record: &Record) -> Option<Self> {
        let last = Place::of(&record.event)?;
        Some(Self {
            first: record.clone(),
            more: Vec::new(),
            last,
        })
    }

    /// Take a record in; false if it does not belong.
    pub fn push(&mut self, record: &Record) -> bool {
        let Some(place) = Place::of(&record.event) else {
            return false;
        };
        if !alike(&self.first, record) || self.more.len() >= MAX_STEPS {
            return false;
        }
        self.more.push(self.last.to(place));
        self.last = place;
        true
    }

    /// The record, if it is only one.
    pub fn single(&self) -> Option<&Record> {
        self.more.is_empty().then_some(&self.first)
    }

    /// Its records, in order.
    pub fn records(self) -> impl Iterator<Item = Record> {
        let Self { first, more, .. } = self;
        let mut place = Place::of(&first.event).unwrap_or_default();
        let next = first.clone();
        let rest = more.into_iter().map(move |step| {
            place = place.step(step);
            let mut record = next.clone();
            place.put(&mut record.event);
            record
        });
        std::iter::once(first).chain(rest)
    }
}
