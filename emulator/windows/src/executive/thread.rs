//! Threads: the records that the run loop schedules by.
//!
//! Thread 0 is the one that Windows calls the driver in. Who runs when is
//! the run loop's business; it says so with [`State::switch_to`].

use super::rules::{breach, unless};
use super::spec::{dispatcher as layout, kpcr, kthread};
use super::work::Job;
use super::{Answer, Handle, State, dispatcher, field, pointer, success};
use crate::rules::executive as rule;
use crate::status::{INSUFFICIENT_RESOURCES, INVALID_PARAMETER, SUCCESS};
use crate::{Call, Outcome, Platform, PlatformError};
use memory::Gva;

/// Most threads a run may make: each has a record for good.
const MAX_THREADS: usize = 1024;
/// Priority of a system thread (LOW_REALTIME_PRIORITY is 16, normal is 8).
const NORMAL_PRIORITY: i32 = 8;
/// Process id of the system process.
const SYSTEM_PROCESS: u64 = 4;

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Its number; the first is 0.
    pub id: u32,
    /// For people.
    pub name: String,
    /// Its pseudo-ETHREAD.
    pub object: Gva,
    /// One past the highest byte of its stack.
    pub stack_base: Gva,
    /// The lowest byte of its stack.
    pub stack_limit: Gva,
    /// What it runs.
    pub start: Gva,
    /// With which arguments: at most four.
    pub arguments: Vec<u64>,
    /// Its priority; nothing follows from it.
    pub priority: i32,
    /// KernelApcDisable: below 0 while normal APCs are held back.
    pub apcs: i16,
    /// SpecialApcDisable: below 0 while all APCs are held back.
    pub special_apcs: i16,
    /// The work item that it runs, if it is one of the system's workers.
    pub item: Option<Gva>,
    /// Its exit status, once it ended.
    pub ended: Option<u32>,
}

impl State {
    pub(super) fn make_first_thread(&mut self, p: &mut dyn Platform) -> Result<(), PlatformError> {
        let made = self.make_thread(p, Gva(0), 0)?;
        if made.is_none() {
            return Err(PlatformError::CannotMap {
                address: self.processor,
                why: "the executive's region has no room for a thread".to_owned(),
            });
        }
        self.switch_to(p, 0)
    }

    /// Every thread so far, by number.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// A thread.
    #[must_use]
    pub fn thread(&self, id: u32) -> Option<&Thread> {
        self.threads.get(id as usize)
    }

    /// The thread that runs.
    #[must_use]
    pub fn current_thread(&self) -> u32 {
        self.current
    }

    /// Another thread runs from now on; the KPRCB follows.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if the KPCR is gone.
    pub fn switch_to(&mut self, p: &mut dyn Platform, id: u32) -> Result<(), PlatformError> {
        let Some(object) = self.thread(id).map(|thread| thread.object) else {
            return Ok(());
        };
        self.current = id;
        p.write_u64(self.at_processor(kpcr::CURRENT_THREAD)?, object.0)
    }

    /// Say which stack a thread has.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if its ETHREAD is gone.
    pub fn set_stack(
        &mut self,
        p: &mut dyn Platform,
        id: u32,
        base: Gva,
        limit: Gva,
    ) -> Result<(), PlatformError> {
        let Some(thread) = self.threads.get_mut(id as usize) else {
            return Ok(());
        };
        thread.stack_base = base;
        thread.stack_limit = limit;
        let object = thread.object;
        p.write_u64(field(object, kthread::INITIAL_STACK)?, base.0)?;
        p.write_u64(field(object, kthread::STACK_BASE)?, base.0)?;
        p.write_u64(field(object, kthread::STACK_LIMIT)?, limit.0)
    }

    /// A thread ends: whoever waits for it goes on. To be called where a
    /// start routine returns; [`Outcome::EndThread`] has done it already.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if its ETHREAD is gone.
    pub fn end_thread(
        &mut self,
        p: &mut dyn Platform,
        id: u32,
        status: u32,
    ) -> Result<(), PlatformError> {
        let Some(thread) = self.threads.get_mut(id as usize) else {
            return Ok(());
        };
        if thread.ended.is_some() {
            return Ok(());
        }
        thread.ended = Some(status);
        let object = thread.object;
        let worker = thread.item.is_some();
        dispatcher::set_signal(p, object, 1)?;
        self.abandon_mutexes(p, id);
        // The reference that a running thread has on itself.
        self.release(object);
        if worker {
            self.start_workers(p)?;
        }
        Ok(())
    }

    /// A worker that has nothing to do has this.
    pub(super) fn rearm(
        &mut self,
        p: &mut dyn Platform,
        id: u32,
        job: Job,
    ) -> Result<(), PlatformError> {
        let Some(thread) = self.threads.get_mut(id as usize) else {
            return Ok(());
        };
        thread.start = job.routine;
        thread.arguments = job.arguments;
        thread.item = Some(job.item);
        thread.name = format!("system worker {id}");
        let (object, again) = (thread.object, thread.ended.take().is_some());
        if again {
            self.track(object);
        }
        dispatcher::set_signal(p, object, 0)
    }

    /// A new thread, or `None` for lack of room.
    pub(super) fn make_thread(
        &mut self,
        p: &mut dyn Platform,
        start: Gva,
        context: u64,
    ) -> Result<Option<u32>, PlatformError> {
        if self.threads.len() >= MAX_THREADS {
            return Ok(None);
        }
        let Some(object) = self.arena.take(kthread::SIZE) else {
            return Ok(None);
        };
        p.write(object, &[0; kthread::SIZE as usize])?;
        // Its Size field is a byte of 32-bit units.
        dispatcher::make(p, object, layout::THREAD, 0x3f8, 0)?;
        self.track(object);
        let id = self.threads.len() as u32;
        self.threads.push(Thread {
            id,
            name: match id {
                0 => "main".to_owned(),
                _ => format!("system thread {id}"),
            },
            object,
            stack_base: Gva(0),
            stack_limit: Gva(0),
            start,
            arguments: vec![context],
            priority: NORMAL_PRIORITY,
            apcs: 0,
            special_apcs: 0,
            item: None,
            ended: None,
        });
        Ok(Some(id))
    }

    fn current_object(&self) -> u64 {
        self.thread(self.current)
            .map_or(0, |thread| thread.object.0)
    }
}

/// NTSTATUS PsCreateSystemThread(PHANDLE, ULONG Access, OBJECT_ATTRIBUTES*,
/// HANDLE Process, PCLIENT_ID, PKSTART_ROUTINE, PVOID Context). Every thread
/// belongs to the system process.
pub(super) fn create(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let handle_at = pointer(call, p, 0)?;
    let client_id = pointer(call, p, 4)?;
    let (start, context) = (pointer(call, p, 5)?, call.argument(p, 6)?);
    let breach = breach(state, &rule::THREAD_IRQL, "PsCreateSystemThread", start.0);
    let made = match p.scenario().refuses_memory() {
        true => None,
        false => state.make_thread(p, start, context)?,
    };
    let Some(id) = made else {
        return Ok(unless(breach, INSUFFICIENT_RESOURCES));
    };
    let Some(handle) = state.open(Handle::Thread(id)) else {
        state.end_thread(p, id, INSUFFICIENT_RESOURCES)?;
        return Ok(unless(breach, INSUFFICIENT_RESOURCES));
    };
    p.write_u64(handle_at, handle)?;
    if client_id.0 != 0 {
        p.write_u64(client_id, SYSTEM_PROCESS)?;
        p.write_u64(field(client_id, 8)?, thread_id(id))?;
    }
    Ok(unless(breach, SUCCESS))
}

/// Thread ids are multiples of 4; the system process has taken the first.
fn thread_id(id: u32) -> u64 {
    8 + 4 * u64::from(id)
}

/// NTSTATUS PsTerminateSystemThread(NTSTATUS): ends a system thread, and
/// returns to any other.
pub(super) fn terminate(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let status = call.argument(p, 0)? as u32;
    if state.current == 0 {
        return Ok(Outcome::Return(u64::from(INVALID_PARAMETER)));
    }
    let breach = breach(
        state,
        &rule::THREAD_END_IRQL,
        "PsTerminateSystemThread",
        u64::from(status),
    );
    match breach.or_else(|| state.ends_with(state.current)) {
        Some(stop) => Ok(Outcome::Stop(stop)),
        None => {
            state.end_thread(p, state.current, status)?;
            Ok(Outcome::EndThread)
        }
    }
}

/// PKTHREAD KeGetCurrentThread(void).
pub(super) fn current(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(state.current_object()))
}

/// HANDLE PsGetCurrentThreadId(void).
pub(super) fn current_id(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(thread_id(state.current)))
}

/// HANDLE PsGetCurrentProcessId(void).
pub(super) fn current_process_id(_: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(SYSTEM_PROCESS))
}

/// KPRIORITY KeSetPriorityThread(PKTHREAD, KPRIORITY): the old one.
pub(super) fn set_priority(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    let priority = (call.argument(p, 1)? as u32).cast_signed();
    let thread = state.threads.iter_mut().find(|t| t.object == object);
    let old = thread.map_or(0, |thread| {
        std::mem::replace(&mut thread.priority, priority)
    });
    Ok(Outcome::Return(u64::from(old.cast_unsigned())))
}

/// KPRIORITY KeQueryPriorityThread(PKTHREAD).
pub(super) fn query_priority(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    let thread = state.threads.iter().find(|t| t.object == object);
    let priority = thread.map_or(0, |thread| thread.priority);
    Ok(Outcome::Return(u64::from(priority.cast_unsigned())))
}

/// VOID IoGetStackLimits(PULONG_PTR Low, PULONG_PTR High).
pub(super) fn stack_limits(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (low, high) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    if let Some(thread) = state.thread(state.current) {
        p.write_u64(low, thread.stack_limit.0)?;
        p.write_u64(high, thread.stack_base.0)?;
    }
    success()
}

/// ULONG KeGetCurrentProcessorNumberEx(PPROCESSOR_NUMBER): group 0, number 0.
pub(super) fn processor_number(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let at = pointer(call, p, 0)?;
    if at.0 != 0 {
        p.write_u32(at, 0)?;
    }
    Ok(Outcome::Return(0))
}

/// ULONG KeQueryActiveProcessorCountEx(USHORT) and its kin: one.
pub(super) fn processor_count(_: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(1))
}

/// CCHAR ExGetPreviousMode(void): KernelMode.
pub(super) fn previous_mode(_: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(0))
}
