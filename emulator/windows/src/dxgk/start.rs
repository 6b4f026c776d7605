//! From a started device to one that works: caps, the frame buffer's save
//! area, reserved ranges, and the isolation domain.

use super::domain::{self, IommuFlags};
use super::framebuffer::Section;
use super::lifecycle::{LifecycleError, Progress, Stage};
use super::spec::{
    FRAMEBUFFER_SAVE_AREA_SIZE, HLK_FORBIDDEN, VERSION_WDDM_2_4, query, query_adapter_info,
    reserved_ranges, vidmm_caps,
};
use super::{DomainMode, place};
use crate::platform::Platform;
use crate::rules::Rule;
use crate::rules::dxgk as rule;
use crate::{Windows, status};
use journal::event::{Allocation, AllocationKind, Event, PageRun, StackId, Subject};
use memory::{Gva, PAGE_SIZE, Pfn};

/// Offset of MemoryManagementCaps (`DXGK_VIDMMCAPS`) in `DXGK_DRIVERCAPS`,
/// computed from the public declaration (natural x64 alignment).
const MEMORY_MANAGEMENT_CAPS: u64 = 0x44;
const BEGIN: &str = "DxgkDdiBeginExclusiveAccess";
/// Where the reserved ranges go, after their header.
const RANGES: Gva = Gva(place::OUTPUT.0 + reserved_ranges::SIZE as u64);
/// Most ranges that there is room for.
const MAX_RANGES: u32 =
    (place::OUTPUT_SIZE - reserved_ranges::SIZE) / reserved_ranges::RANGE_SIZE as u32;
/// Most pages of all ranges: 1 GiB, which no firmware sets aside for a
/// display.
const MAX_RESERVED: u64 = 1 << 18;
/// Page numbers that tables of four levels reach.
const MAX_PAGE: u64 = 1 << 36;

fn note(p: &dyn Platform, text: String) {
    p.scenario().journal().emit(Event::Note { text });
}

/// The driver's answer makes no sense: the reader is told why.
fn note_breach(p: &dyn Platform, rule: &Rule, what: &str) {
    note(p, format!("{what}. {} ({})", rule.says, rule.source));
}

impl Windows {
    /// Ask the driver, with nothing in its output; `input` is a physical
    /// adapter's index.
    pub(super) fn ask(
        &mut self,
        p: &mut dyn Platform,
        kind: u32,
        input: Option<u32>,
        output_size: u32,
    ) -> Result<Progress, LifecycleError> {
        p.write(place::QUERY, &[0; query_adapter_info::SIZE as usize])?;
        p.write(place::OUTPUT, &[0; place::OUTPUT_SIZE as usize])?;
        let at = |offset| Gva(place::QUERY.0 + offset);
        p.write_u32(at(query_adapter_info::TYPE), kind)?;
        p.write_u64(at(query_adapter_info::OUTPUT), place::OUTPUT.0)?;
        p.write_u32(at(query_adapter_info::OUTPUT_SIZE), output_size)?;
        if let Some(index) = input {
            p.write_u32(place::INPUT, index)?;
            p.write_u64(at(query_adapter_info::INPUT), place::INPUT.0)?;
            p.write_u32(at(query_adapter_info::INPUT_SIZE), 4)?;
        }
        let routine = self.slot(|m| m.query_adapter_info);
        Ok(super::lifecycle::passive(
            "DxgkDdiQueryAdapterInfo",
            routine,
            vec![self.dxgk.context, place::QUERY.0],
        ))
    }

    pub(super) fn ask_caps(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        self.dxgk.stage = Stage::Caps;
        self.ask(p, query::DRIVER_CAPS, None, place::OUTPUT_SIZE)
    }

    pub(super) fn caps_told(
        &mut self,
        p: &mut dyn Platform,
        result: u32,
    ) -> Result<Progress, LifecycleError> {
        if !status::is_success(result) {
            self.refuse("DxgkDdiQueryAdapterInfo", result);
            return self.stop(p);
        }
        let caps = p.read_u32(Gva(place::OUTPUT.0 + MEMORY_MANAGEMENT_CAPS))?;
        p.scenario().journal().emit(Event::Caps { memory: caps });
        let full = !self.dxgk.is_display_only();
        self.dxgk.secure_mode_supported = full && caps & vidmm_caps::SECURE_MODE_SUPPORTED != 0;
        if self.dxgk.secure_mode_supported {
            self.tell_forbidden_imports(p);
        }
        if full && self.dxgk.interface_version() >= Some(VERSION_WDDM_2_4) {
            self.dxgk.stage = Stage::SaveSize;
            let size = FRAMEBUFFER_SAVE_AREA_SIZE;
            return self.ask(p, query::FRAMEBUFFER_SAVE_SIZE, Some(0), size);
        }
        self.isolate(p)
    }

    /// The HLK scans the import table of a driver that opts in.
    fn tell_forbidden_imports(&self, p: &dyn Platform) {
        let forbidden = |name: &&String| HLK_FORBIDDEN.contains(&name.as_str());
        for name in self.imports.iter().filter(forbidden) {
            let what = format!("the driver imports {name} and reports IoMmuSecureModeSupported");
            let (none, subject) = (StackId::default(), Subject::default());
            rule::HLK_IMPORT.report_from(p, none, subject, None, what);
        }
    }

    /// A driver may not know the query: it has nothing to save then.
    pub(super) fn save_size_told(
        &mut self,
        p: &mut dyn Platform,
        result: u32,
    ) -> Result<Progress, LifecycleError> {
        if status::is_success(result) {
            let maximum = p.read_u64(place::OUTPUT)?;
            if maximum > p.memory().size() || !maximum.is_multiple_of(PAGE_SIZE) {
                let what = format!("DXGK_FRAMEBUFFERSAVEAREA of {maximum:#x} bytes");
                note_breach(p, &rule::SAVE_MAXIMUM, &what);
                self.refuse("DxgkDdiQueryAdapterInfo", status::INVALID_PARAMETER);
                return self.stop(p);
            }
            self.dxgk.section = (maximum != 0).then(|| Section::new(maximum));
        }
        self.dxgk.stage = Stage::CountRanges;
        self.ask_ranges(p)
    }

    pub(super) fn ranges_counted(
        &mut self,
        p: &mut dyn Platform,
        result: u32,
    ) -> Result<Progress, LifecycleError> {
        let count = p.read_u32(Gva(place::OUTPUT.0 + reserved_ranges::COUNT))?;
        if !status::is_success(result) || count == 0 {
            return self.isolate(p);
        }
        if count > MAX_RANGES {
            return self.refuse_ranges(p, &format!("{count} ranges, {MAX_RANGES} at most"));
        }
        self.dxgk.stage = Stage::Ranges;
        let call = self.ask_ranges(p)?;
        p.write_u32(Gva(place::OUTPUT.0 + reserved_ranges::COUNT), count)?;
        p.write_u64(Gva(place::OUTPUT.0 + reserved_ranges::RANGES), RANGES.0)?;
        Ok(call)
    }

    fn ask_ranges(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        let size = reserved_ranges::SIZE;
        self.ask(p, query::HARDWARE_RESERVED_RANGES, None, size)
    }

    pub(super) fn ranges_told(
        &mut self,
        p: &mut dyn Platform,
        result: u32,
    ) -> Result<Progress, LifecycleError> {
        if !status::is_success(result) {
            self.refuse("DxgkDdiQueryAdapterInfo", result);
            return self.stop(p);
        }
        let count = p.read_u32(Gva(place::OUTPUT.0 + reserved_ranges::COUNT))?;
        let mut runs = Vec::new();
        let mut pages = 0u64;
        for index in 0..u64::from(count.min(MAX_RANGES)) {
            let at = RANGES.0 + index * reserved_ranges::RANGE_SIZE;
            let (base, bytes) = (p.read_u64(Gva(at))?, p.read_u64(Gva(at + 8))?);
            let run = self.reserved_run(p, base, bytes);
            pages = pages.saturating_add(run.map_or(0, |run| run.count));
            match run.filter(|_| pages <= MAX_RESERVED) {
                Some(run) => runs.push(run),
                None => return self.refuse_ranges(p, &format!("{bytes:#x} bytes at {base:#x}")),
            }
        }
        for run in runs {
            let Ok(id) = self.mm.next_id() else { continue };
            p.scenario().journal().emit(Event::Allocate(Allocation {
                id,
                kind: AllocationKind::HardwareReserved,
                handle: 0,
                address: run.first.base().0,
                pages: vec![run],
                requested: run.count,
                stack: StackId::default(),
            }));
            self.dxgk.reserved.push(run);
            self.dxgk.reserved_ids.push(id);
        }
        self.isolate(p)
    }

    /// The pages of a reserved range: whole pages that no RAM of Windows' is.
    fn reserved_run(&self, p: &dyn Platform, base: u64, bytes: u64) -> Option<PageRun> {
        let end = base.checked_add(bytes)?;
        let whole = base.is_multiple_of(PAGE_SIZE) && bytes.is_multiple_of(PAGE_SIZE);
        if !whole || bytes == 0 || end / PAGE_SIZE > MAX_PAGE || bytes / PAGE_SIZE > MAX_RESERVED {
            return None;
        }
        let firmware = |page: u64| {
            let holds = |run: &PageRun| (run.first.0..run.first.0 + run.count).contains(&page);
            self.dxgk.firmware.iter().any(holds)
        };
        let free_of_windows = (base / PAGE_SIZE..end / PAGE_SIZE)
            .all(|page| firmware(page) || !p.memory().contains(Pfn(page).base(), PAGE_SIZE));
        free_of_windows.then_some(PageRun {
            first: Pfn(base / PAGE_SIZE),
            count: bytes / PAGE_SIZE,
        })
    }

    fn refuse_ranges(
        &mut self,
        p: &mut dyn Platform,
        what: &str,
    ) -> Result<Progress, LifecycleError> {
        let what = format!("DXGK_HARDWARERESERVEDRANGES: {what}");
        note_breach(p, &rule::RESERVED_RANGE, &what);
        self.refuse("DxgkDdiQueryAdapterInfo", status::INVALID_PARAMETER);
        self.stop(p)
    }

    /// Make the domain, and begin to switch to it, as mode and flags say.
    fn isolate(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        let begin = self.slot(|m| m.begin_exclusive_access);
        let brackets = begin != 0 && self.slot(|m| m.end_exclusive_access) != 0;
        let supported = self.dxgk.secure_mode_supported && brackets;
        let (mode, flags) = (self.dxgk.mode, self.dxgk.flags);
        let wanted = domain::plan(mode, flags, true);
        let plan = domain::plan(mode, flags, supported);
        if wanted.attach && !plan.attach {
            note(
                p,
                "the driver does not report IoMmuSecureModeSupported with both \
                 exclusive-access routines: its device is not isolated"
                    .to_owned(),
            );
        }
        if !plan.create {
            return self.ready();
        }
        if let Err(error) = domain::create(self, p, plan.map_all) {
            return self.not_enabled(p, error);
        }
        if !plan.attach {
            return self.ready();
        }
        if !brackets {
            note(
                p,
                "the driver's cap is bypassed and it has no exclusive-access routines: the \
                 device is switched to its domain at once"
                    .to_owned(),
            );
            if let Err(error) = domain::switch(self, p) {
                return self.not_enabled(p, error);
            }
            return self.ready();
        }
        self.dxgk.stage = Stage::Begin;
        Ok(self.exclusive(BEGIN, begin))
    }

    /// Isolation could not be enabled: the adapter fails, unless it was
    /// forced at start and may.
    fn not_enabled(
        &mut self,
        p: &mut dyn Platform,
        error: impl std::fmt::Display,
    ) -> Result<Progress, LifecycleError> {
        let forced = self.dxgk.mode != DomainMode::Isolation;
        if forced && self.dxgk.flags.has(IommuFlags::ALLOW_FAILURE) {
            note(
                p,
                format!("isolation could not be enabled, and IOMMUFlags allows that: {error}"),
            );
            return self.ready();
        }
        note(p, format!("isolation could not be enabled: {error}"));
        self.refuse("enabling isolation", status::INSUFFICIENT_RESOURCES);
        self.stop(p)
    }

    /// DxgkDdiBeginExclusiveAccess returned: from now on the device may not
    /// touch memory, and nothing may interrupt the driver.
    pub(super) fn begun(
        &mut self,
        p: &mut dyn Platform,
        result: u32,
    ) -> Result<Progress, LifecycleError> {
        if !status::is_success(result) {
            self.refuse(BEGIN, result);
            return self.stop(p);
        }
        tell_exclusive(p, true);
        self.dxgk.stage = Stage::Quiet;
        Ok(Progress::DevicesTurn)
    }

    /// The device had its turn: switch.
    pub(super) fn switched(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        if let Err(error) = domain::switch(self, p) {
            // The device stays where it was: exclusive access ends as it
            // began (rule exclusive-access-pair).
            self.dxgk.not_switched = Some(error.to_string());
            return self.end(p);
        }
        self.dxgk.stage = Stage::Switched;
        Ok(Progress::DevicesTurn)
    }

    /// The device had its turn behind the domain: exclusive access ends.
    pub(super) fn end(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        tell_exclusive(p, false);
        self.dxgk.stage = Stage::End;
        let routine = self.slot(|m| m.end_exclusive_access);
        Ok(self.exclusive("DxgkDdiEndExclusiveAccess", routine))
    }

    /// DxgkDdiEndExclusiveAccess returned.
    pub(super) fn ended(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        match self.dxgk.not_switched.take() {
            Some(error) => self.not_enabled(p, error),
            None => self.ready(),
        }
    }

    /// Does `routine`, which returned `value`, have a counterpart that ends
    /// what it began? What it holds then is looked at when that returns (rule
    /// exclusive-access-held).
    #[must_use]
    pub fn is_half(&self, routine: &str, value: u64) -> bool {
        routine == BEGIN && status::is_success(value as u32)
    }

    fn exclusive(&self, name: &'static str, routine: u64) -> Progress {
        let arguments = vec![self.dxgk.context, place::EXCLUSIVE.0];
        super::lifecycle::passive(name, routine, arguments)
    }

    /// Is the device in exclusive access? The driver is not called then, and
    /// its interrupts wait.
    #[must_use]
    pub fn in_exclusive_access(&self) -> bool {
        matches!(self.dxgk.stage, Stage::Quiet | Stage::Switched)
    }

    /// Was DxgkDdiStopDevice called, and DxgkDdiRemoveDevice not yet?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.dxgk.stage == Stage::Stop
    }

    pub(super) fn ready(&mut self) -> Result<Progress, LifecycleError> {
        self.dxgk.stage = Stage::Ready;
        Ok(Progress::Ready)
    }
}

/// The device may not touch system memory from the return of
/// DxgkDdiBeginExclusiveAccess to the call of DxgkDdiEndExclusiveAccess.
fn tell_exclusive(p: &dyn Platform, begun: bool) {
    p.scenario()
        .journal()
        .emit(Event::ExclusiveAccess { begun });
}
