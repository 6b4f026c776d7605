//! The adapter's life, with a driver that only answers.

use super::*;
use crate::dxgk::spec::{initialization as slot, query};
use journal::event::{AllocationKind, Event};

const CAP: u32 = 1 << 11;

/// What the driver says of itself.
#[derive(Clone)]
struct Answers {
    caps: u32,
    save: u64,
    ranges: Vec<(u64, u64)>,
    begin: u64,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            caps: CAP,
            save: 0,
            ranges: Vec::new(),
            begin: 0,
        }
    }
}

struct Life {
    windows: Windows,
    machine: TestMachine,
    answers: Answers,
    calls: Vec<&'static str>,
}

impl Life {
    fn new(mode: DomainMode, flags: u32, answers: Answers) -> Self {
        let (mut windows, mut machine) = adapter(mode);
        let frame = |number| PageRun {
            first: Pfn(number),
            count: 1,
        };
        windows.dxgk = State::new(DEVICE, mode)
            .with_flags(IommuFlags(flags))
            .with_firmware(vec![frame(8)]);
        for page in 0..4 {
            let at = Gva(layout::DXGK_DATA.0 + page * PAGE_SIZE);
            machine.map(at, Pfn(3 + page), Protection::WRITE).unwrap();
        }
        for offset in (8..0x468).step_by(8) {
            put(&mut machine, offset, 0x1000 + offset);
        }
        let version = u64::from(spec::VERSION_WDDM_2_4);
        put(&mut machine, slot::VERSION, version);
        let registration = Call {
            registers: [1, 1, ARGUMENT.0, 0],
            stack_pointer: STACK,
        };
        assert_eq!(
            returned(register(&mut windows, &mut machine, &registration)),
            0
        );
        Self {
            windows,
            machine,
            answers,
            calls: Vec::new(),
        }
    }

    /// Go on until the adapter works or its life is over: does it work?
    fn run(&mut self) -> bool {
        let mut result = 0;
        for _ in 0..40 {
            let progress = self.windows.advance(&mut self.machine, result).unwrap();
            match progress {
                Progress::Call(call) => {
                    self.calls.push(call.name);
                    result = self.answer(&call);
                    self.windows.settle_power(&mut self.machine);
                }
                Progress::DevicesTurn => {
                    assert!(self.windows.in_exclusive_access());
                    self.calls.push("device");
                }
                Progress::Ready => return true,
                Progress::Finished => return false,
            }
        }
        panic!("{:?}", self.calls);
    }

    fn answer(&mut self, call: &DriverCall) -> u64 {
        match call.name {
            "DxgkDdiQueryAdapterInfo" => self.query(),
            "DxgkDdiBeginExclusiveAccess" => self.answers.begin,
            _ => 0,
        }
    }

    fn query(&mut self) -> u64 {
        let machine = &mut self.machine;
        let kind = machine.read_u32(place::QUERY).unwrap();
        let output = place::OUTPUT;
        match kind {
            query::DRIVER_CAPS => machine
                .write_u32(Gva(output.0 + 0x44), self.answers.caps)
                .unwrap(),
            query::FRAMEBUFFER_SAVE_SIZE => machine.write_u64(output, self.answers.save).unwrap(),
            query::HARDWARE_RESERVED_RANGES => {
                let count = self.answers.ranges.len() as u32;
                machine.write_u32(output, count).unwrap();
                let at = machine.read_u64(Gva(output.0 + 8)).unwrap();
                for (index, &(base, bytes)) in (0..).zip(&self.answers.ranges) {
                    if at != 0 {
                        machine.write_u64(Gva(at + 16 * index), base).unwrap();
                        machine.write_u64(Gva(at + 16 * index + 8), bytes).unwrap();
                    }
                }
            }
            _ => return u64::from(status::NOT_SUPPORTED),
        }
        0
    }

    fn breaches(&self, finding: &str) -> usize {
        let of = |event: &Event| matches!(event, Event::Breach(b) if b.finding == finding);
        self.machine.events().iter().filter(|e| of(e)).count()
    }

    fn failed(&self) -> bool {
        self.windows.dxgk.failure().is_some()
    }
}

fn started(mode: DomainMode, flags: u32, answers: Answers) -> Life {
    let mut life = Life::new(mode, flags, answers);
    life.run();
    life
}

#[test]
fn the_device_has_its_turn_before_the_switch_and_after_it() {
    let life = started(DomainMode::Isolation, 0, Answers::default());
    let end: Vec<_> = life.calls.iter().rev().take(4).rev().copied().collect();
    let wanted = [
        "DxgkDdiBeginExclusiveAccess",
        "device",
        "device",
        "DxgkDdiEndExclusiveAccess",
    ];
    assert_eq!(end, wanted);
    assert!(life.windows.dxgk.isolated() && !life.windows.in_exclusive_access());
}

#[test]
fn a_driver_that_refuses_exclusive_access_does_not_start() {
    let answers = Answers {
        begin: 0xC000_0001,
        ..Answers::default()
    };
    let life = started(DomainMode::Isolation, 0, answers);
    assert!(life.failed() && !life.windows.dxgk.isolated());
}

#[test]
fn exclusive_access_ends_although_the_device_could_not_be_switched() {
    for (mode, flags, fails) in [
        (DomainMode::Forced, IommuFlags::ALLOW_FAILURE, false),
        (DomainMode::Isolation, 0, true),
    ] {
        let mut life = Life::new(mode, flags, Answers::default());
        let Life {
            windows, machine, ..
        } = &mut life;
        // It is behind another domain, so it cannot be switched to ours.
        let Windows { hal, mm, .. } = windows;
        let kind = crate::hal::DomainKind::Translate;
        let other = hal.create_domain(machine, mm, kind).unwrap();
        hal.attach(machine, mm, DEVICE, other).unwrap();
        let works = life.run();
        assert_eq!((works, life.failed()), (!fails, fails));
        let begin = "DxgkDdiBeginExclusiveAccess";
        let at = life.calls.iter().position(|&call| call == begin).unwrap();
        let after = ["device", "DxgkDdiEndExclusiveAccess"];
        assert_eq!(life.calls[at + 1..at + 3], after);
        assert!(!life.windows.in_exclusive_access());
    }
}

#[test]
fn only_exclusive_access_that_began_is_half_of_something() {
    let life = started(DomainMode::Isolation, 0, Answers::default());
    let half = |routine, value| life.windows.is_half(routine, value);
    assert!(half("DxgkDdiBeginExclusiveAccess", 0));
    assert!(!half("DxgkDdiBeginExclusiveAccess", 0xC000_0001));
    assert!(!half("DxgkDdiEndExclusiveAccess", 0));
    assert!(!half("DxgkDdiStartDevice", 0));
}

#[test]
fn flags_do_what_they_say_and_nothing_without_the_bits_they_need() {
    // Flags, the cap; a domain, RAM mapped in it, the device behind it.
    let rows = [
        (0x00, CAP, [false, false, false]),
        (0x01, CAP, [true, false, false]),
        (0x03, CAP, [true, true, false]),
        (0x07, CAP, [true, true, true]),
        (0x02, CAP, [false, false, false]),
        (0x04, CAP, [false, false, false]),
        (0x06, CAP, [false, false, false]),
        (0x05, CAP, [true, false, false]),
        (0x07, 0, [false, false, false]),
        (0x0F, 0, [true, true, true]),
        (0x08, 0, [false, false, false]),
    ];
    for (flags, caps, wanted) in rows {
        let answers = Answers {
            caps,
            ..Answers::default()
        };
        let mode = IommuFlags(flags).mode();
        let life = started(mode, flags, answers);
        let adapter = &life.windows.dxgk;
        let is = [
            adapter.domain.is_some(),
            adapter.maps_all,
            adapter.isolated(),
        ];
        assert_eq!(is, wanted, "{flags:#x}, cap {caps:#x}");
        assert!(!life.failed());
    }
}

#[test]
fn the_cap_can_be_bypassed_for_the_isolation_of_a_secure_vm() {
    let answers = Answers {
        caps: 0,
        ..Answers::default()
    };
    let flags = IommuFlags::BYPASS_DRIVER_CAP;
    let life = started(DomainMode::Isolation, flags, answers.clone());
    assert!(life.windows.dxgk.isolated() && !life.windows.dxgk.maps_all);
    let life = started(DomainMode::Isolation, 0, answers);
    assert!(!life.windows.dxgk.isolated());
}

#[test]
fn a_domain_that_cannot_be_made_fails_the_adapter_unless_the_flags_allow_it() {
    for (mode, flags, fails) in [
        (DomainMode::Forced, 0, true),
        (DomainMode::Forced, IommuFlags::ALLOW_FAILURE, false),
        (DomainMode::Isolation, IommuFlags::ALLOW_FAILURE, true),
    ] {
        let mut life = Life::new(mode, flags, Answers::default());
        while life.windows.mm.reserve_frame(&mut life.machine).is_ok() {}
        let works = life.run();
        assert_eq!(life.failed(), fails, "{mode:?}, {flags:#x}");
        assert_eq!(works, !fails);
        assert!(!life.windows.dxgk.isolated());
    }
}

#[test]
fn forced_isolation_maps_all_of_ram_and_frees_take_nothing_away() {
    let mut life = started(DomainMode::Forced, 0, Answers::default());
    let Life {
        windows, machine, ..
    } = &mut life;
    for page in [0, 1, 511, 512, 1023] {
        assert!(machine.device_writes(Pfn(page)), "{page}");
    }
    assert!(!machine.device_reads(Pfn(1024)));
    assert_eq!(returned(allocate(windows, machine, PAGE_SIZE)), 0);
    let frame = windows.tracked_frames()[0];
    let handle = handle(machine);
    assert_eq!(free(windows, machine, FREE_PAGES, handle), 0);
    assert!(machine.device_reads(frame));
}

#[test]
fn reserved_ranges_are_reachable_from_the_attach_to_the_removal() {
    let answers = Answers {
        ranges: vec![(8 * PAGE_SIZE, PAGE_SIZE), (2000 * PAGE_SIZE, 4096)],
        ..Answers::default()
    };
    let mut life = started(DomainMode::Isolation, 0, answers);
    assert!(life.machine.device_reads(Pfn(8)) && !life.machine.device_reads(Pfn(9)));
    let domain = life.windows.dxgk.domain.unwrap();
    assert!(life.windows.hal.is_mapped(domain, Pfn(2000)));
    assert!(!life.run());
    assert!(!life.windows.hal.is_mapped(domain, Pfn(2000)));
    let reserved = |event: &Event| matches!(event, Event::Allocate(a) if a.kind == AllocationKind::HardwareReserved);
    let events = life.machine.events();
    assert_eq!(events.iter().filter(|e| reserved(e)).count(), 2);
    let freed = |event: &&Event| matches!(event, Event::Free { .. });
    assert_eq!(events.iter().filter(freed).count(), 2);
}

#[test]
fn a_range_of_windows_ram_or_of_no_whole_pages_fails_the_adapter() {
    for range in [
        (20 * PAGE_SIZE, PAGE_SIZE),
        (8 * PAGE_SIZE, 2 * PAGE_SIZE),
        (8 * PAGE_SIZE + 1, PAGE_SIZE),
        (8 * PAGE_SIZE, 100),
        (8 * PAGE_SIZE, 0),
        (u64::MAX - PAGE_SIZE + 1, PAGE_SIZE),
        (2000 * PAGE_SIZE, 1 << 40),
    ] {
        let answers = Answers {
            ranges: vec![range],
            ..Answers::default()
        };
        let life = started(DomainMode::Isolation, 0, answers);
        assert!(life.failed(), "{range:x?}");
        assert!(life.windows.dxgk.reserved.is_empty());
    }
}

#[test]
fn a_save_area_is_whole_pages_that_can_be_committed() {
    for (save, starts) in [
        (0, true),
        (4 * PAGE_SIZE, true),
        (4 * PAGE_SIZE + 8, false),
        (1 << 40, false),
    ] {
        let answers = Answers {
            save,
            ..Answers::default()
        };
        let life = started(DomainMode::Isolation, 0, answers);
        assert_eq!(!life.failed(), starts, "{save:#x}");
        let made = life.windows.dxgk.section.is_some();
        assert_eq!(made, starts && save != 0);
    }
}

#[test]
fn forbidden_imports_are_told_of_a_driver_that_opts_in_alone() {
    for (caps, told) in [(CAP, 1), (0, 0)] {
        let answers = Answers {
            caps,
            ..Answers::default()
        };
        let mut life = Life::new(DomainMode::Isolation, 0, answers);
        let imports = ["MmFreePagesFromMdl", "MmFreePagesFromMdlEx"];
        life.windows
            .set_imports(imports.map(str::to_owned).to_vec());
        life.run();
        assert_eq!(life.breaches("import-forbidden"), told);
    }
}

#[test]
fn what_is_left_at_the_stop_is_told_and_taken_back() {
    let answers = Answers {
        save: 4 * PAGE_SIZE,
        ..Answers::default()
    };
    let mut life = started(DomainMode::Isolation, 0, answers);
    let Life {
        windows, machine, ..
    } = &mut life;
    allocate(windows, machine, 2 * PAGE_SIZE);
    let kept = handle(machine);
    put(machine, 0, 0);
    put(machine, 8, PAGE_SIZE);
    let name = "DxgkCbPinFrameBufferForSave";
    assert_eq!(returned(call(windows, machine, name)), 0);
    let frames = windows.tracked_frames();
    assert!(!life.run());
    assert_eq!(life.breaches("handle-leak"), 2);
    let domain = life.windows.dxgk.domain.unwrap();
    let mapped = |frame: &&Pfn| life.windows.hal.is_mapped(domain, **frame);
    assert_eq!(frames.iter().filter(mapped).count(), 0);
    assert_eq!(life.windows.mm.stats().live.len(), 0);
    // A late free is the leak's echo, and no finding of its own.
    let status = free(&mut life.windows, &mut life.machine, FREE_PAGES, kept);
    assert_eq!(status, u64::from(status::INVALID_HANDLE));
    assert_eq!(life.breaches("double-free"), 0);
}

#[test]
fn nothing_left_is_no_leak() {
    let mut life = started(DomainMode::Isolation, 0, Answers::default());
    let Life {
        windows, machine, ..
    } = &mut life;
    allocate(windows, machine, PAGE_SIZE);
    let handle = handle(machine);
    free(windows, machine, FREE_PAGES, handle);
    assert!(!life.run());
    assert_eq!(life.breaches("handle-leak"), 0);
    assert!(life.calls.contains(&"DxgkDdiRemoveDevice"));
}

#[test]
fn the_device_is_on_when_the_driver_is_told_of_d3_and_when_it_is_told_of_d0() {
    let mut life = started(DomainMode::Isolation, 0, Answers::default());
    let Life {
        windows, machine, ..
    } = &mut life;
    let command = |machine: &mut TestMachine| machine.config_read(DEVICE, 4, 2) & 6;
    let off = windows.set_power(machine, true).unwrap();
    assert_eq!(off.arguments[1..], [0xFFFF_FFFF, 4, 2]);
    assert_eq!(command(machine), 6);
    windows.settle_power(machine);
    assert!(windows.powered_down());
    assert_eq!(command(machine), 0);
    assert_eq!(windows.set_power(machine, true), None);
    let on = windows.set_power(machine, false).unwrap();
    assert_eq!(on.arguments[1..], [0xFFFF_FFFF, 1, 0]);
    assert_eq!(command(machine), 6);
    assert_eq!(windows.set_power(machine, false), None);
}

#[test]
fn a_device_in_d3_comes_back_before_it_is_stopped() {
    let mut life = started(DomainMode::Isolation, 0, Answers::default());
    life.windows.set_power(&mut life.machine, true).unwrap();
    life.windows.settle_power(&mut life.machine);
    life.calls.clear();
    life.run();
    assert_eq!(
        life.calls[..2],
        ["DxgkDdiSetPowerState", "DxgkDdiStopDevice"]
    );
}
