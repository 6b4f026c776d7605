//! Work items: routines of the driver that the system's worker threads call
//! at PASSIVE_LEVEL.
//!
//! A worker is a thread like any other, except that it is used again: when
//! its routine has returned, it takes the next item. The run loop starts a
//! worker whose record says that it has not ended.

use super::rules::{breach, unless};
use super::spec::{io, work as layout};
use super::{Answer, State, field, pointer};
use crate::mm::spec::SYSTEM_RANGE_START;
use crate::rules::work as rule;
use crate::{Call, Outcome, Platform, PlatformError, Stop};
use journal::event::Subject;
use memory::Gva;
use std::collections::{BTreeSet, VecDeque};

/// Most workers that there are.
const MAX_WORKERS: usize = 4;
/// Most items that may be queued.
const MAX_QUEUED: usize = 4096;

/// A routine that a worker is to call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Job {
    /// WORK_QUEUE_ITEM, or the IO_WORKITEM that starts with one.
    pub item: Gva,
    pub routine: Gva,
    pub arguments: Vec<u64>,
}

/// Work items.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Work {
    /// IO_WORKITEMs that are allocated.
    items: BTreeSet<Gva>,
    /// Next first.
    queued: VecDeque<Job>,
}

impl State {
    /// Give what is queued to workers that have nothing to do.
    pub(super) fn start_workers(&mut self, p: &mut dyn Platform) -> Result<(), PlatformError> {
        while let Some(job) = self.work.queued.front().cloned() {
            let idle = |t: &&super::Thread| t.item.is_some() && t.ended.is_some();
            let id = match self.threads.iter().find(idle).map(|thread| thread.id) {
                Some(id) => id,
                None if self.workers() >= MAX_WORKERS => break,
                None => match self.make_thread(p, job.routine, 0)? {
                    Some(id) => {
                        // Its own reference ends with each item; this one
                        // keeps the thread object.
                        self.track(self.object_of(id));
                        id
                    }
                    None => break,
                },
            };
            self.work.queued.pop_front();
            // From here on the item can be queued again, or freed. If it is
            // gone already, the routine's arguments are not.
            if p.write_u64(job.item, 0).is_err() {
                let what = format!(
                    "the work item at {} is gone, and its turn has come",
                    job.item
                );
                let subject = Subject {
                    allocation: None,
                    address: job.item.0,
                };
                rule::WORK_MEMORY.report(p, subject, None, what);
            }
            self.rearm(p, id, job)?;
        }
        Ok(())
    }

    fn workers(&self) -> usize {
        self.threads.iter().filter(|t| t.item.is_some()).count()
    }

    /// Is it queued, and its routine not called?
    fn queued_routine(&self, item: Gva) -> Option<Gva> {
        let mut queued = self.work.queued.iter();
        queued.find(|job| job.item == item).map(|job| job.routine)
    }

    /// The item that is queued and lies, in part at least, in the memory from
    /// `start` to `end`.
    pub(crate) fn queued_within(&self, start: Gva, end: Gva) -> Option<Gva> {
        let mut items = self.work.queued.iter().map(|job| job.item);
        items.find(|item| *item < end && item.0.saturating_add(layout::SIZE) > start.0)
    }

    /// A worker's routine has returned at an IRQL that is not its own.
    #[must_use]
    pub fn worker_at_irql(&self, irql: u8) -> Option<Stop> {
        let thread = self.thread(self.current)?;
        let (item, routine) = (thread.item?, thread.start);
        let parameter = thread.arguments.first().copied().unwrap_or_default();
        let what = format!("the work item's routine at {routine} returned at IRQL {irql}");
        let values = [routine.0, u64::from(irql), parameter, item.0];
        Some(rule::WORKER_IRQL.stop(&values, what).or_return(0u64))
    }

    fn queue(&mut self, p: &mut dyn Platform, name: &str, kind: u64, job: Job) -> Answer {
        let (item, routine, kind) = (job.item, job.routine, kind & 0xFFFF_FFFF);
        let breach = breach(self, &rule::WORK_IRQL, name, item.0);
        let refused = |rule: &crate::rules::Rule, why: &str| {
            let what = format!("{name} of the work item at {item}: {why}");
            Ok(rule.outcome(&[item.0, kind], what))
        };
        if p.read_u64(item)? != 0 || self.work.queued.len() >= MAX_QUEUED {
            return refused(&rule::WORK_QUEUED, "it is queued, or not initialised");
        }
        let custom = (layout::CUSTOM_PRIORITY..layout::CUSTOM_PRIORITY + 32).contains(&kind);
        if kind >= layout::MAXIMUM_QUEUE && !custom {
            return refused(&rule::WORK_QUEUE, "there is no such queue");
        }
        if routine.0 < SYSTEM_RANGE_START {
            return refused(&rule::WORK_ROUTINE, "its routine is at no system address");
        }
        // Windows links it; only null or not matters.
        p.write_u64(item, item.0)?;
        self.work.queued.push_back(job);
        self.start_workers(p)?;
        Ok(unless(breach, 0u64))
    }

    /// The IO_WORKITEM of a call, and its device object.
    fn io_item(&self, p: &dyn Platform, name: &str, item: Gva) -> Result<u64, Outcome> {
        if !self.work.items.contains(&item) {
            let what = format!("{name}: no work item is allocated at {item}");
            return Err(rule::WORK_GONE.outcome(&[item.0], what));
        }
        Ok(p.read_u64(field(item, layout::IO_OBJECT)?)?)
    }
}

/// PIO_WORKITEM IoAllocateWorkItem(PDEVICE_OBJECT).
pub(super) fn allocate(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let device = pointer(call, p, 0)?;
    let breach = breach(state, &rule::WORK_IRQL, "IoAllocateWorkItem", device.0);
    let mut kind = [0; 2];
    p.read(device, &mut kind)?;
    let kind = u16::from_le_bytes(kind);
    // A device object or a driver object.
    if kind != io::DEVICE_TYPE && kind != io::DRIVER_TYPE {
        let what = format!("IoAllocateWorkItem for {device}, an object of type {kind}");
        return Ok(rule::WORK_OBJECT.outcome(&[device.0], what));
    }
    let made = match p.scenario().refuses_memory() {
        true => None,
        false => state.allocate(p, layout::IO_SIZE)?,
    };
    let Some(item) = made else {
        return Ok(unless(breach, 0u64));
    };
    p.write_u64(field(item, layout::IO_OBJECT)?, device.0)?;
    state.work.items.insert(item);
    Ok(unless(breach, item.0))
}

/// VOID IoFreeWorkItem(PIO_WORKITEM). Its routine may do so.
pub(super) fn free(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "IoFreeWorkItem";
    let item = pointer(call, p, 0)?;
    let breach = breach(state, &rule::WORK_IRQL, name, item.0);
    if let Some(routine) = state.queued_routine(item) {
        let what = format!("{name} of the work item at {item}");
        return Ok(rule::WORK_FREED_QUEUED.outcome(&[item.0, routine.0], what));
    }
    if !state.work.items.remove(&item) {
        let what = format!("{name}: no work item is allocated at {item}");
        return Ok(rule::WORK_FREED_TWICE.outcome(&[item.0], what));
    }
    state.arena.give_back(item);
    Ok(unless(breach, 0u64))
}

/// VOID IoQueueWorkItem(PIO_WORKITEM, PIO_WORKITEM_ROUTINE, WORK_QUEUE_TYPE,
/// PVOID Context): calls `routine(DeviceObject, Context)`.
pub(super) fn queue_io(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "IoQueueWorkItem";
    let (item, routine) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let (kind, context) = (call.argument(p, 2)?, call.argument(p, 3)?);
    let object = state.io_item(p, name, item)?;
    let job = Job {
        item,
        routine,
        arguments: vec![object, context],
    };
    state.queue(p, name, kind, job)
}

/// VOID IoQueueWorkItemEx(PIO_WORKITEM, PIO_WORKITEM_ROUTINE_EX,
/// WORK_QUEUE_TYPE, PVOID Context): calls `routine(IoObject, Context, Item)`.
pub(super) fn queue_io_ex(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "IoQueueWorkItemEx";
    let (item, routine) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let (kind, context) = (call.argument(p, 2)?, call.argument(p, 3)?);
    let object = state.io_item(p, name, item)?;
    let job = Job {
        item,
        routine,
        arguments: vec![object, context, item.0],
    };
    state.queue(p, name, kind, job)
}

/// VOID ExQueueWorkItem(PWORK_QUEUE_ITEM, WORK_QUEUE_TYPE): the item is the
/// driver's memory, as ExInitializeWorkItem, which is inline, made it.
pub(super) fn queue_ex(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (item, kind) = (pointer(call, p, 0)?, call.argument(p, 1)?);
    let routine = Gva(p.read_u64(field(item, layout::ROUTINE)?)?);
    let arguments = vec![p.read_u64(field(item, layout::PARAMETER)?)?];
    let job = Job {
        item,
        routine,
        arguments,
    };
    state.queue(p, "ExQueueWorkItem", kind, job)
}
