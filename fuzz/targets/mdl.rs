//! MDLs that a driver made or changed: header, page array, chain of flags;
//! and every routine of the memory manager over them.
#![no_main]

use ::windows::Outcome;
use ::windows::mm::{self, Config, Mdl, SERVICES, State};
use fuzz::{DATA, Guest, Input, Machine};
use journal::event::PageRun;
use memory::Gva;

/// Slots of an MDL whose `ByteCount` is the largest, at the largest offset.
const MAX_SLOTS: u64 = (1 << 20) + 1;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::new();
    let (first, count) = machine.free_frames();
    let mut state = State::new(&Config {
        frames: vec![PageRun { first, count }],
        quarantine: 8,
    });
    let mut guest = Guest::default();
    let mut input = Input(data);
    while !input.is_empty() {
        match input.byte() {
            0..=0x1f => read(&machine, Gva(guest.value(&mut input))),
            0x20..=0x5f => guest.poke(&mut machine, &mut input),
            0x60..=0x6f => header(&mut guest, &mut machine, &mut input),
            routine => {
                let (_, service) = SERVICES[usize::from(routine) % SERVICES.len()];
                let call = guest.call(&mut machine, &mut input);
                let irql = input.byte() & 3;
                if let Outcome::Return(value) = service(&mut state, &mut machine, &call, irql) {
                    guest.remember(value);
                }
            }
        }
    }
    let stats: mm::MemoryStats = state.stats();
    assert!(stats.free_frames + stats.quarantined_frames <= count);
});

fn read(machine: &Machine, at: Gva) {
    let Ok(mdl) = Mdl::read(machine, at) else {
        return;
    };
    assert!((1..=MAX_SLOTS).contains(&mdl.pages()));
    if let Ok(slots) = mdl.slots(machine) {
        assert_eq!(slots.len() as u64, mdl.pages());
    }
    let _ = mdl.frames(machine);
}

/// An MDL with fields that go together, at the start of the data.
fn header(guest: &mut Guest, machine: &mut Machine, input: &mut Input<'_>) {
    use ::windows::Platform;
    let flags = u64::from(input.half());
    let start = guest.value(input) & !0xfff;
    let count = guest.value(input) & 0xffff_ffff;
    let offset = u64::from(input.half() & 0xfff);
    let words = [
        0,
        0x30 | flags << 16,
        0,
        guest.value(input),
        start,
        count | offset << 32,
    ];
    let slots: Vec<u64> = (0..input.byte() & 7).map(|_| guest.value(input)).collect();
    for (index, word) in (0u64..).zip(words.into_iter().chain(slots)) {
        let _ = machine.write_u64(Gva(DATA.0 + 8 * index), word);
    }
}
