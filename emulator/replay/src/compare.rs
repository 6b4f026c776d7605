//! What the rebuilt IOMMU does, against what the journal says it did.

use journal::Event;
use std::collections::VecDeque;
use std::fmt;

/// Differences kept; a journal of another version may have millions.
const MAX_KEPT: usize = 16;

/// A place where the rebuilt IOMMU and the journal disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Index of the record.
    pub record: usize,
    /// What the journal says, if anything.
    pub recorded: Option<Event>,
    /// What the rebuilt IOMMU does, if anything.
    pub rebuilt: Option<Event>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |event: &Option<Event>| match event {
            Some(event) => format!("{event:?}"),
            None => "nothing".to_owned(),
        };
        write!(
            f,
            "record {}: the journal says {}, the rebuilt IOMMU does {}",
            self.record,
            side(&self.recorded),
            side(&self.rebuilt)
        )
    }
}

/// Two streams of events that should be one.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    recorded: VecDeque<(usize, Event)>,
    rebuilt: VecDeque<Event>,
    pub compared: u64,
    pub differing: u64,
    pub kept: Vec<Difference>,
}

impl Comparison {
    pub fn recorded(&mut self, record: usize, event: Event) {
        self.recorded.push_back((record, event));
    }

    pub fn rebuilt(&mut self, event: Event) {
        self.rebuilt.push_back(event);
    }

    /// Everything both sides have to say about one input has been said.
    pub fn settle(&mut self, at: usize) {
        while !self.recorded.is_empty() || !self.rebuilt.is_empty() {
            let recorded = self.recorded.pop_front();
            let rebuilt = self.rebuilt.pop_front();
            self.compared += 1;
            let record = recorded.as_ref().map_or(at, |(index, _)| *index);
            let recorded = recorded.map(|(_, event)| event);
            if recorded == rebuilt {
                continue;
            }
            self.differing += 1;
            if self.kept.len() < MAX_KEPT {
                self.kept.push(Difference {
                    record,
                    recorded,
                    rebuilt,
                });
            }
        }
    }
}
