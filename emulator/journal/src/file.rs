//! The file: a header, then frames of length, CRC-32 and one postcard record;
//! or, with the highest bit of the length set and the checksum inverted, one
//! postcard run of accesses.

use crate::event::Record;
use crate::run::Run;
use serde::Serialize;
use std::fmt;
use std::io::{self, Read};
use thiserror::Error;

/// The first bytes of a journal: name and version of the format.
pub(crate) const HEADER: [u8; 8] = *b"DMASANJ1";
/// No record is longer; a longer length is a damaged frame.
pub const MAX_RECORD: usize = 4 << 20;

/// A frame's length has this bit if it is of a run.
const RUN: u32 = 1 << 31;

/// Append the frame of `record` to `out`.
pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    frame(record, out, false)
}

/// Append the frame of a run.
pub(crate) fn encode_run(run: &Run, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    frame(run, out, true)
}

fn frame(what: &impl Serialize, out: &mut Vec<u8>, run: bool) -> Result<(), postcard::Error> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    // Taken out and put back: postcard's Extend flavour wants the vector.
    let mut whole = postcard::to_extend(what, std::mem::take(out))?;
    let payload = &whole[start + 8..];
    let length = payload.len() as u32 | if run { RUN } else { 0 };
    let crc = checksum(payload, run);
    whole[start..start + 4].copy_from_slice(&length.to_le_bytes());
    whole[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    *out = whole;
    Ok(())
}

/// Of a run it is another one, so that a damaged length is no other kind.
fn checksum(payload: &[u8], run: bool) -> u32 {
    let crc = crc32fast::hash(payload);
    if run { !crc } else { crc }
}

/// Why a journal cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It does not begin as one.
    #[error("not a dmasan journal (it does not begin with \"DMASANJ1\")")]
    NotAJournal,
    /// The source failed.
    #[error("reading the journal: {0}")]
    Io(#[from] io::Error),
}

/// How a journal ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With a whole record.
    Clean,
    /// In the middle of a record, as after `kill -9` or a full disk: all
    /// before `at` is good, and `lost` bytes were left aside.
    Torn {
        /// Offset of the first bad byte.
        at: u64,
        /// Bytes from there that were read and not understood.
        lost: u64,
        /// What is wrong with them.
        why: &'static str,
    },
}

/// Records that were read together.
#[derive(Default)]
struct Records(Option<Box<dyn Iterator<Item = Record> + Send>>);

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// Reads records one by one.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    at: u64,
    tail: Option<Tail>,
    payload: Vec<u8>,
    /// What is left of a run.
    run: Records,
}

impl<R: Read> Reader<R> {
    /// Checks the header.
    ///
    /// # Errors
    /// [`ReadError::NotAJournal`], [`ReadError::Io`].
    pub fn new(mut source: R) -> Result<Self, ReadError> {
        let mut header = [0; HEADER.len()];
        if fill(&mut source, &mut header)? != header.len() || header != HEADER {
            return Err(ReadError::NotAJournal);
        }
        Ok(Self {
            source,
            at: HEADER.len() as u64,
            tail: None,
            payload: Vec::new(),
            run: Records::default(),
        })
    }

    /// The next record, or `None` at the end; then [`Reader::tail`] says how
    /// the journal ends.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        if let Some(record) = self.run.0.as_mut().and_then(Iterator::next) {
            return Ok(Some(record));
        }
        if self.tail.is_some() {
            return Ok(None);
        }
        let mut head = [0; 8];
        let got = fill(&mut self.source, &mut head)?;
        if got == 0 {
            self.tail = Some(Tail::Clean);
            return Ok(None);
        }
        if got < head.len() {
            return self.torn(got as u64, "a frame's head is cut off");
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let (run, length) = (length & RUN != 0, (length & !RUN) as usize);
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if length > MAX_RECORD {
            return self.torn(8, "a frame's length is impossible");
        }
        self.payload.resize(length, 0);
        let got = fill(&mut self.source, &mut self.payload)?;
        if got < length {
            return self.torn(8 + got as u64, "a record is cut off");
        }
        if checksum(&self.payload, run) != crc {
            return self.torn(8 + got as u64, "a record's checksum is wrong");
        }
        let record = if run {
            let run: Option<Run> = postcard::from_bytes(&self.payload).ok();
            run.and_then(|run| {
                let records = self.run.0.insert(Box::new(run.records()));
                records.next()
            })
        } else {
            postcard::from_bytes(&self.payload).ok()
        };
        if record.is_none() {
            return self.torn(8 + got as u64, "a record's contents are unknown");
        }
        self.at += 8 + length as u64;
        Ok(record)
    }

    /// How the journal ends, once [`Reader::next_record`] gave `None`.
    #[must_use]
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    fn torn(&mut self, lost: u64, why: &'static str) -> Result<Option<Record>, ReadError> {
        let at = self.at;
        self.tail = Some(Tail::Torn { at, lost, why });
        Ok(None)
    }
}

/// Fill `buffer` as far as the source goes.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match source.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The records of a piece of a journal that begins with a frame.
pub(crate) fn read_frames(source: impl Read) -> Result<(Vec<Record>, Tail), ReadError> {
    read_all(Reader {
        source,
        at: 0,
        tail: None,
        payload: Vec::new(),
        run: Records::default(),
    })
}

/// All records of a journal, and how it ends.
///
/// # Errors
/// As [`Reader`].
pub fn read(source: impl Read) -> Result<(Vec<Record>, Tail), ReadError> {
    read_all(Reader::new(source)?)
}

fn read_all<R: Read>(mut reader: Reader<R>) -> Result<(Vec<Record>, Tail), ReadError> {
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    let tail = reader.tail.unwrap_or(Tail::Clean);
    Ok((records, tail))
}
