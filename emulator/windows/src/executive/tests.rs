#![allow(clippy::unwrap_used)]

mod io;
mod locks;
mod machine;
mod mutexes;
mod objects;
mod print;
mod registry;
mod strings;
mod waits;
mod work;

use super::SERVICES;
use super::spec::{kpcr, shared};
use crate::layout;
use machine::{Machine, NOWHERE};
use std::collections::BTreeSet;

#[test]
fn services_have_unique_names() {
    let names: BTreeSet<_> = SERVICES.iter().map(|(name, _)| *name).collect();

    assert_eq!(names.len(), SERVICES.len());
}

#[test]
fn processor_points_at_itself_and_its_thread() {
    let m = Machine::new();
    let kpcr = m.state.kpcr().0;

    assert_eq!(m.u64(kpcr + kpcr::SELF), kpcr);
    assert_eq!(m.u64(kpcr + kpcr::CURRENT_PRCB), kpcr + kpcr::PRCB);
    let thread = m.state.threads()[0].object.0;
    assert_eq!(m.u64(kpcr + kpcr::CURRENT_THREAD), thread);
}

#[test]
fn shared_page_tells_version_and_time() {
    let mut m = Machine::new();
    let page = layout::SHARED_DATA.0;
    let before = m.u64(page + shared::INTERRUPT_TIME);

    m.value("KeStallExecutionProcessor", &[50]);
    m.state.refresh_time(&mut m.p).unwrap();

    assert_eq!(m.u32(page + shared::MAJOR_VERSION), 10);
    assert_eq!(m.u64(page + shared::INTERRUPT_TIME), before + 500);
    assert_eq!(m.u64(page + shared::TICK_COUNT), before / 156_250);
}

#[test]
fn times_agree() {
    let mut m = Machine::new();
    let (system, frequency) = (m.space(8), m.space(8));

    let counter = m.value("KeQueryPerformanceCounter", &[frequency]);
    let interrupt = m.value("KeQueryInterruptTime", &[]);
    m.value("KeQuerySystemTimePrecise", &[system]);

    assert_eq!(counter, interrupt);
    assert_eq!(m.u64(frequency), 10_000_000);
    let page = layout::SHARED_DATA.0;
    assert_eq!(m.u64(system), m.u64(page + shared::SYSTEM_TIME));
}

#[test]
fn no_routine_survives_bad_pointers_by_panicking() {
    for (name, _) in SERVICES {
        for value in [0, NOWHERE, u64::MAX, u64::MAX - 7, 0xffff_8000_0000_fffc] {
            let mut m = Machine::new();
            let arguments = [value; 9];
            let _ = m.call(name, &arguments);
        }
    }
}

#[test]
fn restored_state_is_as_it_was() {
    let mut m = Machine::new();
    let saved = m.state.save();

    m.value("KfRaiseIrql", &[2]);
    m.state.restore(&saved);

    assert_eq!(m.state.irql(), 0);
}

#[test]
fn driver_can_ask_for_a_bug_check() {
    let mut m = Machine::new();

    let plain = m.stop("KeBugCheck", &[0xdead_0000_0000_00e2]);
    let full = m.stop("KeBugCheckEx", &[0xf7, 1, 2, 3, 4]);

    assert_eq!(plain, (0xe2, [0; 4], None));
    assert_eq!(full, (0xf7, [1, 2, 3, 4], None));
}

#[test]
fn version_is_the_build_that_has_isolation() {
    let mut m = Machine::new();
    let at = m.space(0x120);
    m.p_write_u32(at, 0x11c);

    m.value("RtlGetVersion", &[at]);

    assert_eq!(
        (m.u32(at + 4), m.u32(at + 8), m.u32(at + 12)),
        (10, 0, super::BUILD)
    );
}
