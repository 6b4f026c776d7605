//! Every routine of Windows that a driver can import or gets from dxgkrnl,
//! called with any arguments over any memory, in every stage of the adapter's
//! life: strings, format strings, registry paths, timers, DPCs, events,
//! registration tables, callbacks' structures, device space.
#![no_main]

use ::windows::dxgk::spec::INTERFACE;
use ::windows::dxgk::{self, DomainMode, Progress};
use ::windows::executive::{self, Region};
use ::windows::{Outcome, Platform, Windows, hal, layout, mm};
use fuzz::{DEVICE, Guest, Input, Machine};
use journal::event::PageRun;
use memory::Gva;
use std::sync::LazyLock;

/// Steps of one input: each costs up to a page of work for every frame.
const MAX_STEPS: usize = 256;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut machine = Machine::new();
    let mut windows = boot(&mut machine, input.byte() & 1 == 0);
    let named = |&index: &u32| THUNKS.thunk_name(index).is_some();
    let thunks = (0..).take_while(named).count() as u32;
    let mut guest = Guest::default();
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.byte() {
            0..=0x2f => guest.poke(&mut machine, &mut input),
            0x30..=0x37 => machine.step(),
            0x38..=0x3f => pass_time(&mut windows, &mut machine, &mut input),
            0x40..=0x4f => {
                let result = guest.value(&mut input);
                match windows.advance(&mut machine, result) {
                    Ok(Progress::Call(call)) => {
                        call.arguments
                            .iter()
                            .for_each(|&value| guest.remember(value));
                    }
                    Ok(Progress::Ready | Progress::DevicesTurn) => {}
                    Ok(Progress::Finished) | Err(_) => break,
                }
            }
            0x50..=0x57 => {
                let length = usize::from(input.byte());
                if windows.escape(&mut machine, input.bytes(length)).is_err() {
                    break;
                }
            }
            0x58..=0x5f => {
                let _ = windows.interrupt(u32::from(input.byte()));
                let _ = windows.hal.fault_interrupt(&mut machine);
            }
            high => {
                let index = (u32::from(high) << 8 | u32::from(input.byte())) % thunks;
                let call = guest.call(&mut machine, &mut input);
                match windows.call(&mut machine, index, &call) {
                    Outcome::Return(value) => guest.remember(value),
                    Outcome::Block(wait) => {
                        let _ = windows.executive.wait_faults(&machine, &wait);
                        let _ = windows.executive.next_deadline(Some(&wait));
                        let _ = windows.executive.try_satisfy(&mut machine, &wait);
                    }
                    // The run goes on, as with --keep-going, if it can.
                    Outcome::Stop(stop) => match stop.go_on {
                        Some(value) => guest.remember(value),
                        None => break,
                    },
                    Outcome::Invoke { .. } => {}
                    Outcome::EndThread => break,
                }
            }
        }
    }
});

/// Every routine's thunk, made once.
static THUNKS: LazyLock<Windows> = LazyLock::new(|| {
    let settings = [("Setting".to_owned(), "text".to_owned())];
    let mut windows = Windows::new(
        executive::State::new("fuzz", &settings),
        mm::State::new(&mm::Config::default()),
        hal::State::default(),
        dxgk::State::new(DEVICE, DomainMode::Isolation),
        [],
    );
    let names = executive::SERVICES.iter().map(|(name, _)| *name);
    let names = names.chain(mm::SERVICES.iter().map(|(name, _)| *name));
    let extra = [
        dxgk::REGISTER,
        dxgk::REGISTER_DISPLAY_ONLY,
        "MmGetSystemRoutineAddress",
    ];
    for name in names.chain(INTERFACE).chain(extra) {
        windows.resolve_routine("ntoskrnl.exe", name);
    }
    windows
});

fn boot(machine: &mut Machine, isolated: bool) -> Windows {
    let (first, count) = machine.free_frames();
    let mut windows = THUNKS.clone();
    windows.mm = mm::State::new(&mm::Config {
        frames: vec![PageRun { first, count }],
        quarantine: 8,
    });
    if !isolated {
        windows.dxgk = dxgk::State::new(DEVICE, DomainMode::Passthrough);
    }
    let region = Region {
        base: layout::SYSTEM_DATA,
        size: layout::SYSTEM_DATA_SIZE,
    };
    windows
        .executive
        .init(machine, region)
        .expect("its region is mapped");
    windows
        .hal
        .init(machine, &mut windows.mm, &[DEVICE])
        .expect("the unit answers");
    windows
        .hal
        .configure_device(machine, DEVICE, 2)
        .expect("the device has room");
    windows.set_image(layout::IMAGES, 0x1_0000, Gva(layout::IMAGES.0 + 0x1000));
    windows
}

fn pass_time(windows: &mut Windows, machine: &mut Machine, input: &mut Input<'_>) {
    machine.scenario().advance(1 << (input.byte() & 0x3f));
    // Objects that the driver unmapped: the machine would end the run.
    let _ = windows.executive.expire_timers(machine);
    let _ = windows.executive.refresh_time(machine);
    let _ = windows.take_dpc(machine);
}
