//! Our own commands to the client: DMA_READ and DMA_WRITE, by which QEMU does
//! an access for the device through the guest's IOMMU, and raises the guest's
//! fault if that refuses it.

use crate::message::{self, Header};
use crate::spec;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Sender;

/// Commands sent and not yet answered; further ones wait their turn.
const MAX_PENDING: usize = 16;
/// Commands that wait; further ones are dropped.
const MAX_WAITING: usize = 4096;

/// What became of an access that the client did: the bytes of a read, or an
/// errno.
pub(crate) type Outcome = Result<Vec<u8>, u32>;

/// An access to ask for.
#[derive(Debug)]
pub(crate) struct Ask {
    pub address: u64,
    pub count: u32,
    /// What to write; `None` reads.
    pub data: Option<Vec<u8>>,
    /// Who wants to know; nobody: it only raises the guest's fault.
    pub answer: Option<Sender<Outcome>>,
}

impl Ask {
    fn command(&self) -> u16 {
        if self.data.is_some() {
            spec::DMA_WRITE
        } else {
            spec::DMA_READ
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    waiting: VecDeque<Ask>,
    pending: BTreeMap<u16, Ask>,
    last: u16,
}

impl Outgoing {
    /// Ask when there is room.
    pub fn push(&mut self, ask: Ask) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(ask);
        }
    }

    /// The next message to send, if one may be sent.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        if self.pending.len() >= MAX_PENDING {
            return None;
        }
        let ask = self.waiting.pop_front()?;
        // At most MAX_PENDING are taken.
        self.last = (1..=u16::MAX)
            .map(|step| self.last.wrapping_add(step))
            .find(|id| !self.pending.contains_key(id))?;
        let data = ask.data.as_deref().unwrap_or_default();
        let body = message::dma_body(ask.address, ask.count, data);
        let bytes = message::command(self.last, ask.command(), &body);
        self.pending.insert(self.last, ask);
        Some(bytes)
    }

    /// A reply came. `None`: to nothing that was asked. Else what was asked
    /// and what came of it, if nobody else wants to know.
    pub fn answered(&mut self, header: Header, body: &[u8]) -> Option<(Ask, Outcome)> {
        let ask = self.pending.get(&header.id)?;
        if ask.command() != header.command {
            return None;
        }
        let ask = self.pending.remove(&header.id)?;
        let outcome = match header.failure() {
            Some(errno) => Err(errno),
            None if ask.data.is_some() => Ok(Vec::new()),
            None => message::dma_data(body, ask.count)
                .map(<[u8]>::to_vec)
                .ok_or(message::Errno::INVAL.0),
        };
        if let Some(answer) = &ask.answer {
            // Who asked may have given up.
            let _ = answer.send(outcome.clone());
        }
        Some((ask, outcome))
    }
}
