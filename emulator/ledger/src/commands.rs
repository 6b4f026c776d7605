//! Which doorbell submitted which command.
//!
//! A doorbell is a trap of the driver's code (a write of device memory), then
//! the device's word of how far the driver has filled the available ring. The
//! commands between the previous such index and this one were submitted with
//! it; the index is 16 bits wide and wraps.

use crate::finding::{Command, Place};
use crate::text::short;
use journal::event::{ContextId, NameId, StackId};
use memory::RequesterId;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

/// Commands remembered; the oldest are forgotten.
const MAX_CONTEXTS: usize = 4096;
/// Doorbells remembered for each queue.
const MAX_DOORBELLS: usize = 512;
/// Queues whose doorbells are remembered.
const MAX_QUEUES: usize = 256;
/// Characters kept of what a command works on.
const MAX_DETAIL: usize = 400;

#[derive(Clone, Debug)]
struct Doorbell {
    /// Available index before it, and with it.
    range: Option<(u16, u16)>,
    time: u64,
    stack: StackId,
}

impl Doorbell {
    /// Was the command at this position submitted with it?
    fn submitted(&self, position: u16) -> bool {
        self.range.is_some_and(|(before, after)| {
            position.wrapping_sub(before) < after.wrapping_sub(before)
        })
    }
}

/// What is known of a command.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) device: RequesterId,
    pub(crate) queue: u16,
    pub(crate) position: u16,
    pub(crate) head: u16,
    pub(crate) name: Option<NameId>,
    pub(crate) detail: String,
    /// The resource that it works on.
    pub(crate) resource: Option<u32>,
    pub(crate) answer: Option<NameId>,
    pub(crate) submitted: Option<(u64, StackId)>,
    /// A finding shows it: tell the finding what is learnt later.
    pub(crate) found: bool,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commands {
    contexts: BTreeMap<u32, Context>,
    queues: BTreeMap<(RequesterId, u16), VecDeque<Doorbell>>,
    /// The latest write of device memory, not yet taken for a doorbell.
    trap: Option<(u64, StackId)>,
}

impl Commands {
    /// The driver wrote device memory.
    pub(crate) fn mmio_write(&mut self, time: u64, stack: StackId) {
        self.trap = Some((time, stack));
    }

    /// The latest write of device memory.
    pub(crate) fn written(&self) -> Option<(u64, StackId)> {
        self.trap
    }

    /// The device was notified. Returns the contexts that it had taken from
    /// the ring before the doorbell that submits them.
    pub(crate) fn notify(
        &mut self,
        time: u64,
        device: RequesterId,
        queue: u16,
        available: Option<u16>,
    ) -> Vec<ContextId> {
        let (time, stack) = self.trap.take().unwrap_or((time, StackId(0)));
        let known = self.queues.contains_key(&(device, queue));
        if !known && self.queues.len() >= MAX_QUEUES {
            return Vec::new();
        }
        let doorbells = self.queues.entry((device, queue)).or_default();
        // A queue begins at 0 (virtio 1.2 §2.7.6).
        let before = doorbells
            .iter()
            .rev()
            .find_map(|bell| bell.range)
            .map_or(0, |(_, after)| after);
        let bell = Doorbell {
            range: available.map(|after| (before, after)),
            time,
            stack,
        };
        let late = self
            .contexts
            .iter_mut()
            .rev()
            .take(64)
            .filter(|(_, context)| {
                context.submitted.is_none()
                    && (context.device, context.queue) == (device, queue)
                    && bell.submitted(context.position)
            })
            .map(|(&id, context)| {
                context.submitted = Some((time, stack));
                ContextId(id)
            })
            .collect();
        if doorbells.len() == MAX_DOORBELLS {
            doorbells.pop_front();
        }
        doorbells.push_back(bell);
        late
    }

    /// The device was reset: its queues begin at 0 again.
    pub(crate) fn reset(&mut self, device: RequesterId) {
        self.queues.retain(|&(of, _), _| of != device);
    }

    /// The device took an entry from the ring.
    pub(crate) fn minted(
        &mut self,
        id: ContextId,
        device: RequesterId,
        queue: u16,
        position: u16,
        head: u16,
    ) {
        let submitted = self.queues.get(&(device, queue)).and_then(|doorbells| {
            // Newest first: an index comes again after 65,536 commands.
            let exact = doorbells.iter().rev().find(|b| b.submitted(position));
            let unread = || doorbells.back().filter(|b| b.range.is_none());
            exact.or_else(unread).map(|bell| (bell.time, bell.stack))
        });
        if self.contexts.len() >= MAX_CONTEXTS && !self.contexts.contains_key(&id.0) {
            self.contexts.pop_first();
        }
        self.contexts.insert(
            id.0,
            Context {
                device,
                queue,
                position,
                head,
                name: None,
                detail: String::new(),
                resource: None,
                answer: None,
                submitted,
                found: false,
            },
        );
    }

    /// The device learnt which command it is.
    pub(crate) fn named(
        &mut self,
        id: ContextId,
        name: NameId,
        detail: &str,
        resource: Option<u32>,
    ) {
        if let Some(context) = self.contexts.get_mut(&id.0) {
            context.name = Some(name);
            context.detail = short(detail, MAX_DETAIL);
            context.resource = resource;
        }
    }

    /// The device answered it.
    pub(crate) fn answered(&mut self, id: ContextId, answer: NameId) {
        if let Some(context) = self.contexts.get_mut(&id.0) {
            context.answer = Some(answer);
        }
    }

    /// Hash which command each context is, who submitted it, and what the
    /// next ones will be said to be submitted with.
    pub(crate) fn hash_known<'n>(
        &self,
        hasher: &mut impl Hasher,
        name: impl Fn(NameId) -> &'n str,
        stack: impl Fn(StackId) -> u64,
    ) {
        let Self {
            contexts,
            queues,
            trap,
        } = self;
        let at = |at: Option<(u64, StackId)>| at.map(|(_, id)| stack(id));
        for (id, context) in contexts {
            let Context {
                device,
                queue,
                position,
                head: _,
                name: of,
                detail: _,
                resource,
                answer: _,
                submitted,
                found: _,
            } = context;
            (id, device, queue, position).hash(hasher);
            (of.map(&name), resource, at(*submitted)).hash(hasher);
        }
        for (key, doorbells) in queues {
            key.hash(hasher);
            let last = doorbells.iter().rev().find_map(|bell| bell.range);
            last.map(|(_, after)| after).hash(hasher);
            // Those whose commands the device has all taken are over.
            let of_queue = |context: &&Context| (context.device, context.queue) == *key;
            let taken = contexts.values().rev().find(of_queue);
            let next = taken.map_or(0, |context| context.position.wrapping_add(1));
            let forgotten = contexts.len() >= MAX_CONTEXTS;
            let open = |bell: &&Doorbell| {
                bell.range.is_none_or(|(_, after)| {
                    forgotten || after.wrapping_sub(next).wrapping_sub(1) < 1 << 15
                })
            };
            for bell in doorbells.iter().filter(open) {
                (bell.range, stack(bell.stack)).hash(hasher);
            }
        }
        (contexts.len(), queues.len(), at(*trap)).hash(hasher);
    }

    pub(crate) fn get(&self, id: ContextId) -> Option<&Context> {
        self.contexts.get(&id.0)
    }

    /// A finding shows this command.
    pub(crate) fn mark(&mut self, id: ContextId) {
        if let Some(context) = self.contexts.get_mut(&id.0) {
            context.found = true;
        }
    }
}

/// A command as a finding shows it.
pub(crate) fn describe(
    id: ContextId,
    context: Option<&Context>,
    name: impl Fn(NameId) -> String,
    place: impl Fn(u64, StackId) -> Place,
) -> Command {
    let Some(context) = context else {
        return Command {
            context: id,
            ..Command::default()
        };
    };
    Command {
        context: id,
        queue: Some(context.queue),
        position: Some(context.position),
        head: Some(context.head),
        name: context.name.map(&name),
        detail: context.detail.clone(),
        answer: context.answer.map(name),
        submitted: context.submitted.map(|(time, stack)| place(time, stack)),
    }
}
