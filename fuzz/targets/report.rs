//! Ledger and report over any sequence of events, however contradictory: as
//! text, JSON and SVG. No control character of the journal's may get through.
#![no_main]

use journal::Tail;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::show(&fuzz::records(data), Tail::Clean));
