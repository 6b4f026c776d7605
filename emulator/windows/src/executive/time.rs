//! Time as the driver sees it. All of it follows from the scenario's virtual
//! time.

use super::spec::shared;
use super::{Answer, State, field, pointer, success};
use crate::{Call, Outcome, Platform, PlatformError, layout};

/// Units of Windows' times: 100 ns.
const UNIT: u64 = 100;
/// KeQueryTimeIncrement: 15.625 ms, the usual clock interval.
const TIME_INCREMENT: u64 = 156_250;
/// Milliseconds a tick, 24-bit fraction, as TickCountMultiplier says it.
const TICK_COUNT_MULTIPLIER: u32 = (TIME_INCREMENT << 24).div_euclid(10_000) as u32;
/// KeQueryPerformanceCounter's frequency on a machine with an invariant TSC.
const FREQUENCY: u64 = 10_000_000;
/// System time when the run begins: 2026-01-01, 00:00 UTC.
const EPOCH: u64 = 134_116_992_000_000_000;
/// Time since boot when the run begins: one minute.
const BOOTED: u64 = 600_000_000;
/// The longest stall, microseconds: a driver that asks for more means
/// something else.
const LONGEST_STALL: u64 = 1_000_000;

/// Time since boot, 100 ns.
fn interrupt_time(p: &dyn Platform) -> u64 {
    (p.scenario().now() / UNIT).saturating_add(BOOTED)
}

/// System time, 100 ns since 1601.
fn system_time(p: &dyn Platform) -> u64 {
    (p.scenario().now() / UNIT).saturating_add(EPOCH)
}

/// Virtual nanoseconds of a due time: negative is relative to `now`,
/// otherwise it is system time.
pub(super) fn due(now: u64, value: i64) -> u64 {
    if value < 0 {
        now.saturating_add(value.unsigned_abs().saturating_mul(UNIT))
    } else {
        value
            .unsigned_abs()
            .saturating_sub(EPOCH)
            .saturating_mul(UNIT)
    }
}

/// Write the fields of KUSER_SHARED_DATA that never change.
pub(super) fn write_constants(p: &mut dyn Platform) -> Result<(), PlatformError> {
    let page = layout::SHARED_DATA;
    let numbers = [
        (shared::TICK_COUNT_MULTIPLIER, TICK_COUNT_MULTIPLIER),
        (shared::BUILD, super::version::BUILD),
        (shared::PRODUCT_TYPE, 1), // NtProductWinNt
        (shared::MAJOR_VERSION, 10),
        (shared::MINOR_VERSION, 0),
        (shared::ACTIVE_PROCESSORS, 1),
    ];
    for (offset, value) in numbers {
        p.write_u32(field(page, offset)?, value)?;
    }
    p.write(field(page, shared::PRODUCT_TYPE_IS_VALID)?, &[1])?;
    // PROCESSOR_ARCHITECTURE_AMD64.
    p.write(field(page, shared::ARCHITECTURE)?, &9u16.to_le_bytes())?;
    p.write_u64(field(page, shared::QPC_FREQUENCY)?, FREQUENCY)?;
    let root: Vec<u8> = "C:\\Windows\0"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    p.write(field(page, shared::SYSTEM_ROOT)?, &root)
}

impl State {
    /// Bring the times of KUSER_SHARED_DATA up to date. Windows does so at
    /// each clock interrupt; here it is exact.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if the page is not there.
    pub fn refresh_time(&self, p: &mut dyn Platform) -> Result<(), PlatformError> {
        let interrupt = interrupt_time(p);
        let times = [
            (shared::INTERRUPT_TIME, interrupt),
            (shared::SYSTEM_TIME, system_time(p)),
            (shared::TICK_COUNT, interrupt / TIME_INCREMENT),
        ];
        for (offset, value) in times {
            // KSYSTEM_TIME: low, high, and high again.
            let at = field(layout::SHARED_DATA, offset)?;
            p.write(at, &value.to_le_bytes())?;
            p.write_u32(field(at, 8)?, (value >> 32) as u32)?;
        }
        Ok(())
    }
}

/// VOID KeStallExecutionProcessor(ULONG Microseconds).
pub(super) fn stall(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let microseconds = u64::from(call.argument(p, 0)? as u32);
    p.scenario()
        .advance(microseconds.min(LONGEST_STALL) * 1_000);
    Ok(Outcome::Return(0))
}

/// LARGE_INTEGER KeQueryPerformanceCounter(PLARGE_INTEGER Frequency): the
/// union comes back in RAX.
pub(super) fn performance_counter(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let frequency = pointer(call, p, 0)?;
    if frequency.0 != 0 {
        p.write_u64(frequency, FREQUENCY)?;
    }
    Ok(Outcome::Return(interrupt_time(p)))
}

/// VOID KeQuerySystemTimePrecise(PLARGE_INTEGER), and its older kin.
pub(super) fn query_system_time(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let at = pointer(call, p, 0)?;
    let now = system_time(p);
    p.write_u64(at, now)?;
    success()
}

/// ULONGLONG KeQueryInterruptTime(void).
pub(super) fn query_interrupt_time(_: &mut State, p: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(interrupt_time(p)))
}

/// ULONGLONG KeQueryInterruptTimePrecise(PULONG64 QpcTimeStamp).
pub(super) fn query_interrupt_time_precise(
    _: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let now = interrupt_time(p);
    p.write_u64(pointer(call, p, 0)?, now)?;
    Ok(Outcome::Return(now))
}

/// VOID KeQueryTickCount(PLARGE_INTEGER).
pub(super) fn query_tick_count(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let ticks = interrupt_time(p) / TIME_INCREMENT;
    p.write_u64(pointer(call, p, 0)?, ticks)?;
    Ok(Outcome::Return(0))
}

/// ULONG KeQueryTimeIncrement(void).
pub(super) fn query_time_increment(_: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(TIME_INCREMENT))
}
