//! The journal's file: any bytes after its header, and a well-made journal
//! that is cut and has one byte changed. What comes before the damage must be
//! read as it was written.
#![no_main]

use fuzz::Input;
use journal::Tail;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut raw = b"DMASANJ1".to_vec();
    raw.extend_from_slice(data);
    let _ = journal::read(data);
    let _ = journal::read(&raw[..]);

    let mut input = Input(data);
    let (cut, at, change) = (input.half(), input.half(), input.byte());
    let records = fuzz::records(input.0);
    let mut file = fuzz::framed(&records);
    let (read, tail) = journal::read(&file[..]).expect("its header is there");
    assert_eq!(read, records);
    assert_eq!(tail, Tail::Clean);

    let header = 8;
    file.truncate((usize::from(cut) % (file.len() + 1)).max(header));
    if file.len() > header {
        let at = header + usize::from(at) % (file.len() - header);
        file[at] ^= change;
    }
    let (read, tail) = journal::read(&file[..]).expect("its header is there");
    assert!(records.starts_with(&read));
    if let Tail::Torn { at, lost, .. } = tail {
        assert!(at + lost <= file.len() as u64);
    }
});
