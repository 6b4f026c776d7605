//! Handles, and references of the executive's own objects.

use super::rules::{breach, unless};
use super::spec::status::OBJECT_TYPE_MISMATCH;
use super::{Answer, State, pointer, success};
use crate::rules::executive as rule;
use crate::status::{INVALID_HANDLE, SUCCESS};
use crate::{Call, Outcome, Platform};
use memory::Gva;

/// Kernel handles have the upper bits set.
const KERNEL_HANDLES: u64 = 0xFFFF_FFFF_8000_0000;
/// Most handles that may be open at once.
const MAX_HANDLES: usize = 4096;

/// What a handle stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Handle {
    /// A thread, by number.
    Thread(u32),
    /// A registry key, by its normalised path.
    Key(String),
    /// A named event.
    Event(Gva),
}

impl State {
    /// The handles that are open: value and meaning.
    pub fn handles(&self) -> impl Iterator<Item = (u64, &Handle)> + '_ {
        self.handles.iter().map(|(&value, handle)| (value, handle))
    }

    /// Make a handle, or `None` for lack of room.
    pub(super) fn open(&mut self, handle: Handle) -> Option<u64> {
        if self.handles.len() >= MAX_HANDLES {
            return None;
        }
        // Never reused while there are others, so that a stale handle is
        // seen.
        self.next_handle = self.next_handle.wrapping_add(4);
        let value = KERNEL_HANDLES | u64::from(self.next_handle & 0x3fff_fffc);
        if let Handle::Thread(id) = handle {
            let object = self.thread(id).map(|thread| thread.object);
            object.into_iter().for_each(|object| self.track(object));
        }
        self.handles.insert(value, handle);
        Some(value)
    }

    /// What a handle stands for, if it is open.
    pub(super) fn look_up(&self, value: u64) -> Option<&Handle> {
        self.handles.get(&value)
    }

    fn close(&mut self, value: u64) -> bool {
        let closed = self.handles.remove(&value);
        if let Some(Handle::Thread(id)) = closed {
            let object = self.thread(id).map(|thread| thread.object);
            object.into_iter().for_each(|object| {
                self.release(object);
            });
        }
        closed.is_some()
    }

    /// One more reference of an object of ours; it has none before its first.
    pub(super) fn track(&mut self, object: Gva) {
        *self.references.entry(object).or_insert(0) += 1;
    }

    /// One reference less; the last one frees the memory. `None` if there is
    /// no such object.
    pub(super) fn release(&mut self, object: Gva) -> Option<u64> {
        let count = self.references.get_mut(&object)?;
        *count = count.saturating_sub(1);
        let left = *count;
        if left == 0 {
            self.references.remove(&object);
            self.arena.give_back(object);
        }
        Some(left)
    }
}

/// NTSTATUS ZwClose(HANDLE).
pub(super) fn close(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let handle = call.argument(p, 0)?;
    let breach = breach(state, &rule::CLOSE_IRQL, "ZwClose", handle);
    let status = if state.close(handle) {
        u64::from(SUCCESS)
    } else {
        rule::CLOSE_HANDLE.refuse(format_args!("ZwClose of {handle:#x}"))
    };
    Ok(unless(breach, status))
}

/// NTSTATUS ObReferenceObjectByHandle(HANDLE, Access, POBJECT_TYPE, Mode,
/// PVOID *Object, Information). The object type is not compared: it is a
/// data export that the dispatcher owns. Keys have no body here.
pub(super) fn reference_by_handle(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let handle = call.argument(p, 0)?;
    let object_at = pointer(call, p, 4)?;
    let breach = breach(
        state,
        &rule::BY_HANDLE_IRQL,
        "ObReferenceObjectByHandle",
        handle,
    );
    let object = match state.look_up(handle) {
        Some(Handle::Thread(id)) => state.thread(*id).map(|thread| thread.object),
        Some(Handle::Event(event)) => Some(*event),
        Some(Handle::Key(_)) => return Ok(unless(breach, OBJECT_TYPE_MISMATCH)),
        None => None,
    };
    let Some(object) = object else {
        return Ok(unless(breach, INVALID_HANDLE));
    };
    if state.references.contains_key(&object) {
        state.track(object);
    }
    p.write_u64(object_at, object.0)?;
    Ok(unless(breach, SUCCESS))
}

/// LONG_PTR ObfReferenceObject(PVOID). Objects of others (device objects that
/// dxgkrnl made) live as long as the run.
pub(super) fn reference(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    // Windows writes the header before the object; so it must be there.
    p.read_u64(object)?;
    if state.references.contains_key(&object) {
        state.track(object);
    }
    let count = state.references.get(&object).copied().unwrap_or(2);
    Ok(Outcome::Return(count))
}

/// LONG_PTR ObfDereferenceObject(PVOID).
pub(super) fn dereference(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "ObfDereferenceObject";
    let object = pointer(call, p, 0)?;
    p.read_u64(object)?;
    let breach = breach(state, &rule::DEREFERENCE_IRQL, name, object.0);
    let count = state.references.get(&object).copied();
    // A thread that runs holds a reference of itself, which is not the
    // driver's to drop.
    let runs = |thread: &super::Thread| thread.object == object && thread.ended.is_none();
    let is_last_of_a_thread = count == Some(1) && state.threads.iter().any(runs);
    if count.is_some() && !is_last_of_a_thread {
        let left = state.release(object).unwrap_or(0);
        return Ok(unless(breach, left));
    }
    if count.is_none() && !state.arena.was_ours(object) {
        return Ok(unless(breach, 1u64));
    }
    let what = format!("{name}: the object at {object} has no references left");
    Ok(rule::DEREFERENCED_TOO_OFTEN.outcome(&[object.0], what))
}

/// NTSTATUS ObReferenceObjectByPointer(PVOID, Access, POBJECT_TYPE, Mode).
pub(super) fn reference_by_pointer(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    reference(state, p, call)?;
    success()
}
