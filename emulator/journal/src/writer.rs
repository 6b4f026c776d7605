//! Writing.

use crate::event::{Event, NameId, Record, StackId};
use crate::file::{self, HEADER, MAX_RECORD};
use crate::run::Run;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use thiserror::Error;

/// Why a journal cannot be written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file took no more; what it has so far can be read.
    #[error("cannot write the journal: {0}; what was written so far can be read")]
    Write(#[from] io::Error),
    /// A journal on disk cannot be wound back.
    #[error("a journal in a file only grows: restore needs one in memory")]
    AppendOnly,
}

/// What restoring a journal in memory needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    length: usize,
    time: u64,
    /// How many there were: ids are given in order, and none is taken back.
    names: usize,
    stacks: usize,
}

#[derive(Debug)]
struct Inner {
    /// Frames not yet in the file; all of them, if there is none.
    buffer: Vec<u8>,
    file: Option<File>,
    /// Set once: after it nothing more is written.
    broken: Option<io::Error>,
    names: BTreeMap<String, u32>,
    stacks: BTreeMap<Vec<u64>, u32>,
    /// Are accesses that belong together written as one?
    compact: bool,
    /// Those that are not yet in the buffer.
    run: Option<Run>,
}

/// The journal as every room writes it, through a shared reference: one
/// machine is one thread, so a cell suffices.
#[derive(Debug)]
pub struct Journal {
    inner: RefCell<Inner>,
    time: Cell<u64>,
    /// Off in benchmarks that measure something else.
    enabled: Cell<bool>,
}

impl Journal {
    fn with(file: Option<File>) -> Self {
        Self {
            inner: RefCell::new(Inner {
                buffer: HEADER.to_vec(),
                file,
                broken: None,
                names: BTreeMap::new(),
                // The empty stack is 0.
                stacks: BTreeMap::from([(Vec::new(), 0)]),
                compact: false,
                run: None,
            }),
            time: Cell::new(0),
            enabled: Cell::new(true),
        }
    }

    /// A journal in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with(None)
    }

    /// A journal that appends to `file`.
    #[must_use]
    pub fn to_file(file: File) -> Self {
        Self::with(Some(file))
    }

    /// A journal that keeps nothing, for benchmarks.
    #[must_use]
    pub fn disabled() -> Self {
        let journal = Self::in_memory();
        journal.enabled.set(false);
        journal
    }

    /// Write accesses that belong together in a quarter of the room: for a
    /// device that reads its screens sixty times a second. Only of a journal in
    /// a file, which nobody asks for its length.
    pub fn compact(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.compact = inner.file.is_some();
    }

    /// Is anything kept? Lets a hot path skip making the event.
    #[inline]
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.get()
    }

    /// Virtual time that later events carry, nanoseconds.
    pub fn set_time(&self, time: u64) {
        self.time.set(time);
    }

    /// Append an event. It reaches the file with [`Journal::flush`] at the
    /// latest; errors are kept and told there.
    pub fn emit(&self, event: Event) {
        if !self.enabled.get() {
            return;
        }
        let record = Record {
            time: self.time.get(),
            event,
        };
        self.inner.borrow_mut().append(&record);
    }

    /// The id of a text; written before its first use.
    #[must_use]
    pub fn name(&self, text: &str) -> NameId {
        if !self.enabled.get() {
            return NameId(0);
        }
        let mut inner = self.inner.borrow_mut();
        if let Some(&id) = inner.names.get(text) {
            return NameId(id);
        }
        let id = inner.names.len() as u32;
        inner.names.insert(text.to_owned(), id);
        inner.append(&Record {
            time: self.time.get(),
            event: Event::Name {
                id: NameId(id),
                text: text.to_owned(),
            },
        });
        NameId(id)
    }

    /// The id of a stack; written before its first use.
    #[must_use]
    pub fn stack(&self, frames: &[u64]) -> StackId {
        if !self.enabled.get() {
            return StackId(0);
        }
        let mut inner = self.inner.borrow_mut();
        if let Some(&id) = inner.stacks.get(frames) {
            return StackId(id);
        }
        let id = inner.stacks.len() as u32;
        inner.stacks.insert(frames.to_vec(), id);
        inner.append(&Record {
            time: self.time.get(),
            event: Event::Stack {
                id: StackId(id),
                frames: frames.to_vec(),
            },
        });
        StackId(id)
    }

    /// Hand everything to the operating system. Called before guest or peer
    /// can see anything later: from then on the events survive our death.
    ///
    /// # Errors
    /// [`JournalError::Write`], now and at every later call.
    pub fn flush(&self) -> Result<(), JournalError> {
        self.inner.borrow_mut().flush()
    }

    /// All bytes of a journal in memory; of one in a file, those not yet
    /// flushed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.inner.borrow().buffer.clone()
    }

    /// The records of a journal in memory from byte `from` on, which is what
    /// [`Journal::len`] was before the first of them.
    #[must_use]
    pub fn since(&self, from: usize) -> Vec<Record> {
        let inner = self.inner.borrow();
        let tail = inner.buffer.get(from..).unwrap_or_default();
        // What was just encoded can be decoded.
        file::read_frames(tail).map_or_else(|_| Vec::new(), |(records, _)| records)
    }

    /// Forget all events of a journal in memory; interned ids stay.
    pub fn clear(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.file.is_none() {
            inner.buffer.truncate(HEADER.len());
        }
    }

    /// Length of [`Journal::bytes`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.borrow().buffer.len()
    }

    /// Has nothing been written?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= HEADER.len()
    }

    /// A point to come back to.
    #[must_use]
    pub fn save(&self) -> State {
        let inner = self.inner.borrow();
        State {
            length: inner.buffer.len(),
            time: self.time.get(),
            names: inner.names.len(),
            stacks: inner.stacks.len(),
        }
    }

    /// Go back to a point of this journal, forgetting what was written since.
    ///
    /// # Errors
    /// [`JournalError::AppendOnly`] for a journal in a file.
    pub fn restore(&self, state: &State) -> Result<(), JournalError> {
        let mut inner = self.inner.borrow_mut();
        if inner.file.is_some() || inner.buffer.len() < state.length {
            return Err(JournalError::AppendOnly);
        }
        inner.buffer.truncate(state.length);
        let Inner { names, stacks, .. } = &mut *inner;
        if names.len() > state.names {
            names.retain(|_, id| (*id as usize) < state.names);
        }
        if stacks.len() > state.stacks {
            stacks.retain(|_, id| (*id as usize) < state.stacks);
        }
        self.time.set(state.time);
        Ok(())
    }
}

impl Inner {
    /// Buffered bytes at which a journal in a file is written unasked.
    const HIGH_WATER: usize = 1 << 20;

    fn append(&mut self, record: &Record) {
        if self.compact {
            if self.run.as_mut().is_some_and(|run| run.push(record)) {
                return;
            }
            self.end_run();
            self.run = Run::begin(record);
            if self.run.is_some() {
                return;
            }
        }
        self.write(|buffer| file::encode(record, buffer));
    }

    /// What is kept back goes into the buffer.
    fn end_run(&mut self) {
        let Some(run) = self.run.take() else {
            return;
        };
        match run.single() {
            Some(record) => self.write(|buffer| file::encode(record, buffer)),
            None => self.write(|buffer| file::encode_run(&run, buffer)),
        }
    }

    fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), postcard::Error>) {
        if self.broken.is_some() {
            return;
        }
        let before = self.buffer.len();
        if let Err(e) = encode(&mut self.buffer) {
            self.broken = Some(io::Error::other(e));
            return;
        }
        if self.buffer.len() - before > MAX_RECORD + 8 {
            self.buffer.truncate(before);
            self.broken = Some(io::Error::other(
                "a record is longer than the format allows",
            ));
            return;
        }
        if self.file.is_some() && self.buffer.len() >= Self::HIGH_WATER {
            // An error is kept and told by the next flush.
            let _ = self.write_out();
        }
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        self.end_run();
        self.write_out()
    }

    fn write_out(&mut self) -> Result<(), JournalError> {
        if let Some(error) = &self.broken {
            return Err(copy(error).into());
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        match file.write_all(&self.buffer) {
            Ok(()) => {
                self.buffer.clear();
                Ok(())
            }
            Err(error) => {
                let told = copy(&error);
                self.broken = Some(error);
                Err(told.into())
            }
        }
    }
}

/// `io::Error` is not `Clone`.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
