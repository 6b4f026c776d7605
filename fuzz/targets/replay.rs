//! Replay of any sequence of events: the IOMMU rebuilt from register and
//! table writes. The first event is always a `Begin`, with at most 1 MiB of
//! guest memory, or one whose size must be refused.
#![no_main]

use fuzz::Input;
use journal::event::{Begin, Event};
use journal::{Record, Tail};
use memory::RequesterId;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let memory = match input.byte() {
        0 => 0,
        0xff => u64::MAX - u64::from(input.byte()),
        0xfe => 4097,
        pages => u64::from(pages) * 4096,
    };
    let begin = Begin {
        memory,
        device: RequesterId::new(0, 2, 0),
        ..Begin::default()
    };
    let mut records = vec![Record {
        time: 0,
        event: Event::Begin(begin),
    }];
    records.extend(fuzz::records(input.0));
    match replay::replay(&records) {
        Ok(replayed) => {
            let told: usize = replayed
                .differences
                .iter()
                .map(|d| d.to_string().len())
                .sum();
            assert!(told > 0 || replayed.differing == 0);
            assert!(replayed.differing <= replayed.compared);
            fuzz::show(&replayed.records, Tail::Clean);
        }
        Err(error) => assert!(memory == 0 || memory > 1 << 20 || memory == 4097, "{error}"),
    }
});
