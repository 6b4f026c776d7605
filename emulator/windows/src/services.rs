//! Which routine an import is, and the call of it.

use crate::call::{Call, Outcome, Stop};
use crate::platform::Platform;
use crate::rules::work as rule;
use crate::{Windows, dxgk, executive, injected, layout, lookaside, mm, status};
use memory::{Gva, PAGE_SIZE};

/// Who implements a routine.
#[derive(Clone, Copy)]
enum Service {
    Executive(executive::Service),
    Memory(mm::Service),
    Callback(dxgk::Callback),
}

/// Routines of ntoskrnl that need more than one room.
const SHARED: &[(&str, dxgk::Callback)] = &[
    (dxgk::REGISTER, dxgk::register),
    (dxgk::REGISTER_DISPLAY_ONLY, dxgk::register_display_only),
    ("MmGetSystemRoutineAddress", get_system_routine_address),
    (
        "ExInitializeNPagedLookasideList",
        lookaside::initialize_nonpaged,
    ),
    (
        "ExInitializePagedLookasideList",
        lookaside::initialize_paged,
    ),
    ("ExInitializeLookasideListEx", lookaside::initialize_ex),
    ("ExDeleteNPagedLookasideList", lookaside::delete_nonpaged),
    ("ExDeletePagedLookasideList", lookaside::delete_paged),
    ("ExDeleteLookasideListEx", lookaside::delete_ex),
    ("ExFlushLookasideListEx", lookaside::flush),
];

/// Data exports of ntoskrnl, each an 8-byte cell with its value. From public
/// documentation; the build is that of Windows 10 1803, the first with the
/// isolation callbacks.
const CELLS: &[(&str, u64)] = &[
    ("NtBuildNumber", 0xF000_0000 | 17134),
    ("KdDebuggerEnabled", 0),
    ("KdDebuggerNotPresent", 1),
    ("MmHighestUserAddress", 0x0000_7FFF_FFFE_FFFF),
    ("MmSystemRangeStart", 0xFFFF_8000_0000_0000),
    ("MmUserProbeAddress", 0x0000_7FFF_FFFF_0000),
    ("InitSafeBootMode", 0),
];

fn find(name: &str) -> Option<Service> {
    fn row<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
        table.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }
    row(SHARED, name)
        .or_else(|| row(dxgk::CALLBACKS, name))
        .map(Service::Callback)
        .or_else(|| row(executive::SERVICES, name).map(Service::Executive))
        .or_else(|| row(mm::SERVICES, name).map(Service::Memory))
}

/// Names of every routine that there is.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let shared = SHARED.iter().chain(dxgk::CALLBACKS).map(|(name, _)| *name);
    let executive = executive::SERVICES.iter().map(|(name, _)| *name);
    let memory = mm::SERVICES.iter().map(|(name, _)| *name);
    shared.chain(executive).chain(memory)
}

impl Windows {
    /// Is there such a routine or datum here? Helpers, which are guest code,
    /// are the machine's.
    #[must_use]
    pub fn knows(name: &str) -> bool {
        find(name).is_some() || CELLS.iter().any(|(n, _)| *n == name)
    }

    /// The address that an import, or a slot of an interface, gets: a thunk,
    /// a helper, a cell, or the never-mapped page of a missing one.
    pub fn resolve_routine(&mut self, module: &str, name: &str) -> Gva {
        if let Some(at) = self.resolved.get(name) {
            return *at;
        }
        let at = if let Some(offset) = self.helpers.get(name) {
            Gva(layout::HELPERS.0 + offset)
        } else if let Some(cell) = CELLS.iter().position(|(n, _)| *n == name) {
            Gva(layout::CELLS.0 + 8 * cell as u64)
        } else if find(name).is_some() && self.has_room_for_a_thunk() {
            let index = self.thunks.len() as u64;
            self.thunks.push(name.to_owned());
            Gva(layout::THUNKS.0 + index * layout::THUNK_SIZE)
        } else {
            let index = (self.missing.len() as u64).min(layout::MISSING_LIMIT - 1);
            self.missing.push(format!("{module}!{name}"));
            Gva(layout::MISSING.0 + index * PAGE_SIZE)
        };
        self.resolved.insert(name.to_owned(), at);
        at
    }

    fn has_room_for_a_thunk(&self) -> bool {
        (self.thunks.len() as u64 + 1) * layout::THUNK_SIZE < layout::THUNKS_SIZE
    }

    /// Name of the routine behind thunk `index`.
    #[must_use]
    pub fn thunk_name(&self, index: u32) -> Option<&str> {
        self.thunks.get(index as usize).map(String::as_str)
    }

    /// The missing routine or datum whose page holds `address`.
    #[must_use]
    pub fn missing_name(&self, address: Gva) -> Option<&str> {
        let offset = address.0.checked_sub(layout::MISSING.0)?;
        self.missing
            .get((offset / PAGE_SIZE) as usize)
            .map(String::as_str)
    }

    /// Contents of the page of data exports.
    #[must_use]
    pub fn cells() -> Vec<u8> {
        CELLS
            .iter()
            .flat_map(|(_, value)| value.to_le_bytes())
            .collect()
    }

    /// The driver called thunk `index`.
    pub fn call(&mut self, p: &mut dyn Platform, index: u32, call: &Call) -> Outcome {
        if p.scenario().is_faulty()
            && let Some(outcome) = injected::begin(p, self.thunk_name(index).unwrap_or_default())
        {
            return outcome;
        }
        let service = self.thunk_name(index).and_then(find);
        let outcome = match service {
            Some(Service::Executive(routine)) => routine(&mut self.executive, p, call),
            Some(Service::Memory(routine)) => match self.frees_queued_work(index, call) {
                Some(stop) => Outcome::Stop(stop),
                None => {
                    let irql = self.executive.irql();
                    routine(&mut self.mm, p, call, irql)
                }
            },
            Some(Service::Callback(routine)) => routine(self, p, call),
            // Only a forged jump into the thunk pages gets here.
            None => Outcome::Return(u64::from(status::NOT_IMPLEMENTED)),
        };
        self.explain(outcome)
    }

    /// The stop of a call that frees pool in which a work item is queued.
    fn frees_queued_work(&self, index: u32, call: &Call) -> Option<Stop> {
        let name = self.thunk_name(index)?;
        if !matches!(name, "ExFreePool" | "ExFreePoolWithTag") {
            return None;
        }
        let [address, ..] = call.registers;
        let block = self.mm.pool_block(Gva(address))?;
        let end = address.saturating_add(block.size);
        let item = self.executive.queued_within(Gva(address), Gva(end))?;
        let what = format!("{name} of {address:#x}, where the work item at {item} is queued");
        let stop = rule::WORK_POOL.stop(&[item.0, address, end], what);
        Some(stop.about(self.mm.subject_at(Gva(address))).or_return(0u64))
    }
}

/// PVOID MmGetSystemRoutineAddress(UNICODE_STRING*): NULL for what is not
/// there, as drivers expect that probe for newer routines.
fn get_system_routine_address(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    let name = match executive::read_unicode_string(p, Gva(call.registers[0])) {
        Ok(name) => name,
        Err(e) => return e.into(),
    };
    // The display port library has those two by other means.
    let of_displib = [dxgk::REGISTER, dxgk::REGISTER_DISPLAY_ONLY];
    let known = windows.helpers.contains_key(&name)
        || SHARED
            .iter()
            .any(|(n, _)| *n == name && !of_displib.contains(n))
        || CELLS.iter().any(|(n, _)| *n == name)
        || executive::SERVICES.iter().any(|(n, _)| *n == name)
        || mm::SERVICES.iter().any(|(n, _)| *n == name);
    if !known {
        return Outcome::Return(0);
    }
    Outcome::Return(windows.resolve_routine("ntoskrnl.exe", &name).0)
}
