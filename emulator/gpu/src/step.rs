//! The step machine: one guest access, ring operation or interrupt a step. A
//! command goes through fetch, (transfer,) respond, used, ask, interrupt.
//!
//! An access that the scenario leaves in flight keeps the command where it
//! is: a device that waits for a completion, and a posted write that nothing
//! later passes (PCI Express 2.4.1).

use crate::command::{self, Command, Header, MAX_COMMAND, Need};
use crate::cursor::CursorUpdate;
use crate::device::Done;
use crate::resource::Transfer;
use crate::spec::{self, command as code};
use crate::tell::tell_backing;
use crate::{Stepped, VirtioGpu};
use iommu::{Dma, Issued, Landing};
use journal::event::{ContextId, TokenId};
use memory::{Iova, PAGE_SIZE};
use pci::{Chain, RingError, Segment};
use scenario::{AnswerOf, Site, SiteKind, What};

/// Where a command is. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    queue: u16,
    head: u16,
    pub(crate) context: ContextId,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    pub(crate) header: Option<Header>,
    stage: Stage,
    /// An access in flight, and how many bytes it is of.
    flight: Option<(TokenId, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Reading the command; what was read so far.
    Fetch(Vec<u8>),
    /// Reading backing, perhaps the image of a cursor.
    Transfer(Transfer, Option<CursorUpdate>),
    /// Writing the response.
    Respond {
        bytes: Vec<u8>,
        code: u32,
        written: u32,
    },
    /// Giving the buffer back, with so many bytes written.
    Used(u32),
    /// Asking whether the driver wants an interrupt.
    Ask,
    /// Interrupting.
    Interrupt,
}

/// The access that a stage makes next.
enum Access {
    Read(Iova, u32),
    Write(Iova, Vec<u8>),
}

impl Job {
    fn new(chain: Chain) -> Self {
        Self {
            queue: chain.queue,
            head: chain.head,
            context: chain.context,
            readable: chain.readable,
            writable: chain.writable,
            header: None,
            stage: Stage::Fetch(Vec::new()),
            flight: None,
        }
    }

    /// All of its buffer.
    pub(crate) fn buffer(&self) -> impl Iterator<Item = Segment> + '_ {
        self.readable.iter().chain(&self.writable).copied()
    }

    /// Which queue it came from.
    pub(crate) fn queue(&self) -> u16 {
        self.queue
    }

    /// Where the response goes.
    pub(crate) fn writes(&self) -> Vec<Segment> {
        self.writable.clone()
    }
}

impl VirtioGpu {
    /// One step: of a command, or of reading what is shown in blobs. They take
    /// turns, and while one has an access in flight the other rests: so no
    /// command that takes memory away is answered while that memory is read.
    pub(crate) fn advance(&mut self, dma: Dma<'_>, force: bool) -> Stepped {
        if !self.is_live() {
            return Stepped::Idle;
        }
        let in_flight = |job: &Job| job.flight.is_some();
        let command = self.gpu.job.as_ref().is_some_and(in_flight);
        let turn = self.gpu.vsync.turn;
        let vsync = if command || self.gpu.vsync.in_flight() {
            !command
        } else {
            let now = dma.env().scenario.now();
            self.has_vsync_work(now) && (turn || !self.has_command())
        };
        self.gpu.vsync.turn = !vsync;
        if vsync {
            self.advance_vsync(dma, force)
        } else {
            self.advance_command(dma, force)
        }
    }

    /// Is there a command under way, or to be taken?
    #[must_use]
    pub fn has_command(&self) -> bool {
        let mut queues = [spec::CONTROL_QUEUE, spec::CURSOR_QUEUE].into_iter();
        self.gpu.job.is_some() || queues.any(|q| self.wanted(q))
    }

    fn advance_command(&mut self, dma: Dma<'_>, force: bool) -> Stepped {
        // Taken out, and put back unless the command is over: no failure on
        // the way can leave half of it behind.
        let Some(mut job) = self.gpu.job.take() else {
            return self.take_entry(dma);
        };
        let dma = dma.with_context(job.context);
        let stepped = self.work(dma, &mut job, force);
        let over = stepped.is_none();
        // After a failure in a ring nothing goes on before a reset.
        if self.is_live() && !over {
            self.gpu.job = Some(job);
        } else if !self.is_live() {
            self.gpu.notified = [false; 2];
        }
        stepped.unwrap_or(Stepped::Progress)
    }

    /// Take an available entry of a queue that was notified.
    fn take_entry(&mut self, dma: Dma<'_>) -> Stepped {
        for queue in [spec::CONTROL_QUEUE, spec::CURSOR_QUEUE] {
            if !self.wanted(queue) {
                continue;
            }
            match self.function.pop(dma, queue) {
                Ok(Some(chain)) => match spoiled(dma, &chain) {
                    None => self.gpu.job = Some(Job::new(chain)),
                    Some(What::Unplug) => self.unplug(dma),
                    Some(_) => {
                        self.function.fail(dma, RingError::Stopped(queue));
                        self.gpu.notified = [false; 2];
                    }
                },
                // Empty: until the next notification.
                Ok(None) => self.gpu.set_notified(queue, false),
                Err(_) => self.gpu.notified = [false; 2],
            }
            return Stepped::Progress;
        }
        Stepped::Idle
    }

    /// Was the queue notified, and may it be used?
    pub(crate) fn wanted(&self, queue: u16) -> bool {
        let notified = self.gpu.notified.get(usize::from(queue));
        notified.is_some_and(|&n| n) && self.function.transport().queue_ready(queue)
    }

    /// One step of a command; `None` when it is over.
    fn work(&mut self, dma: Dma<'_>, job: &mut Job, force: bool) -> Option<Stepped> {
        if let Some((token, length)) = job.flight {
            match dma.land(token, force) {
                Landing::Pending => return Some(Stepped::Waiting),
                Landing::Landed(bytes) => {
                    job.flight = None;
                    self.landed(dma, job, &bytes, length);
                }
                // Only a reset cancels, and it drops the command; so this is
                // another device's doing, and the bytes will never come.
                Landing::Gone => {
                    job.flight = None;
                    self.refused(dma, job);
                }
            }
            return Some(Stepped::Progress);
        }
        if let Stage::Transfer(transfer, _) = &mut job.stage
            && !dma.env().scenario.parts_accesses(false)
            && !dma.env().scenario.has_faults(SiteKind::Access)
        {
            match self.gpu.transfer_read(dma, transfer) {
                Some(Ok(())) if transfer.next().is_some() => {}
                Some(Ok(())) => self.transferred(dma, job),
                Some(Err(_)) => self.refused(dma, job),
                None => return self.housekeep(dma, job),
            }
            return Some(Stepped::Progress);
        }
        match self.next_access(job) {
            Some(access) => self.issue(dma, job, &access),
            None => return self.housekeep(dma, job),
        }
        Some(Stepped::Progress)
    }

    fn issue(&mut self, dma: Dma<'_>, job: &mut Job, access: &Access) {
        let (issued, length) = match access {
            Access::Read(iova, length) => (dma.issue_read(*iova, *length), *length),
            Access::Write(iova, bytes) => (dma.issue_write(*iova, bytes), bytes.len() as u32),
        };
        match issued {
            Ok(Issued::Done(bytes)) => self.landed(dma, job, &bytes, length),
            Ok(Issued::InFlight(token)) => job.flight = Some((token, length)),
            Err(_) => self.refused(dma, job),
        }
    }

    /// Which access comes next, if this stage has one left.
    fn next_access(&self, job: &Job) -> Option<Access> {
        match &job.stage {
            Stage::Fetch(read) => {
                let (iova, length) = piece(&job.readable, read.len() as u64)?;
                let room = (MAX_COMMAND - read.len().min(MAX_COMMAND)) as u32;
                (room != 0).then(|| Access::Read(iova, length.min(room)))
            }
            Stage::Transfer(transfer, _) => {
                let (iova, length) = self.gpu.transfer_piece(transfer)?;
                Some(Access::Read(iova, length))
            }
            Stage::Respond { bytes, written, .. } => {
                let rest = bytes.get(*written as usize..).filter(|r| !r.is_empty())?;
                let (iova, length) = piece(&job.writable, u64::from(*written))?;
                let length = rest.len().min(length as usize);
                Some(Access::Write(iova, rest.get(..length)?.to_vec()))
            }
            Stage::Used(_) | Stage::Ask | Stage::Interrupt => None,
        }
    }

    /// An access landed: the bytes of a read, or `length` bytes written.
    fn landed(&mut self, dma: Dma<'_>, job: &mut Job, bytes: &[u8], length: u32) {
        match &mut job.stage {
            Stage::Fetch(read) => {
                read.extend_from_slice(bytes);
                self.fetched(dma, job);
            }
            Stage::Transfer(transfer, _) => {
                self.gpu.transfer_put(transfer, bytes);
                if transfer.next().is_none() {
                    self.transferred(dma, job);
                }
            }
            Stage::Respond { written, .. } => {
                *written += length;
                self.responded(dma, job);
            }
            Stage::Used(_) | Stage::Ask | Stage::Interrupt => {}
        }
    }

    /// An access was refused. §5.7.6.7 knows no code for it, so a command or
    /// a transfer ends with ERR_UNSPEC; and what could not be written of a
    /// response is not counted as written.
    fn refused(&mut self, dma: Dma<'_>, job: &mut Job) {
        match &mut job.stage {
            Stage::Fetch(_) => {
                self.name_command(dma, job, "");
                self.respond(dma, job, code::ERR_UNSPEC);
            }
            Stage::Transfer(transfer, _) => {
                self.gpu.give_up(*transfer);
                self.respond(dma, job, code::ERR_UNSPEC);
            }
            Stage::Respond { code, written, .. } => {
                let (code, written) = (*code, *written);
                self.told(dma, job.context, code);
                job.stage = Stage::Used(written);
            }
            Stage::Used(_) | Stage::Ask | Stage::Interrupt => {}
        }
    }

    /// More of the command is here: do it, if it is all.
    fn fetched(&mut self, dma: Dma<'_>, job: &mut Job) {
        let Stage::Fetch(read) = &job.stage else {
            return;
        };
        job.header = Header::parse(read);
        let features = self.function.transport().features();
        let wanted = match command::need(read, features) {
            Need::Refused(code) => {
                self.name_command(dma, job, "more entries than the device takes");
                return self.respond(dma, job, code);
            }
            Need::Bytes(wanted) => wanted,
        };
        if read.len() < wanted {
            if piece(&job.readable, read.len() as u64).is_none() {
                // Without a header it is not even known what was asked.
                let code = match job.header {
                    Some(_) => code::ERR_INVALID_PARAMETER,
                    None => code::ERR_UNSPEC,
                };
                self.name_command(dma, job, "cut short");
                self.respond(dma, job, code);
            }
            return;
        }
        let command = Command::parse(read, features).unwrap_or(Command::Unknown);
        let detail = match (&command, job.header) {
            (Command::Unknown, Some(header)) => format!("type {:#06x}", header.kind),
            _ => command.detail(),
        };
        self.tell_command(dma, job, &detail, command.resource());
        let done = self
            .gpu
            .execute(job.queue, &command, dma.env().scenario.now());
        if matches!(done, Done::Response(code::OK_NODATA)) {
            tell_backing(dma, job.context, &command);
        }
        match done {
            Done::Response(code) => self.respond(dma, job, code),
            Done::Answer(code, body) => self.respond_with(dma, job, code, &body),
            Done::Transfer(transfer, cursor) => job.stage = Stage::Transfer(transfer, cursor),
            Done::Flushed(scanouts) => {
                for scanout in scanouts {
                    self.tell_flush(dma, scanout);
                }
                self.respond(dma, job, code::OK_NODATA);
            }
        }
    }

    /// All of the backing was read.
    fn transferred(&mut self, dma: Dma<'_>, job: &mut Job) {
        if let Stage::Transfer(_, Some(cursor)) = job.stage {
            self.gpu.update_cursor(cursor);
        }
        self.respond(dma, job, code::OK_NODATA);
    }

    /// Make the response; the next steps write it.
    fn respond(&mut self, dma: Dma<'_>, job: &mut Job, code: u32) {
        self.respond_with(dma, job, code, &[]);
    }

    /// The same, with `body` after the header.
    fn respond_with(&mut self, dma: Dma<'_>, job: &mut Job, code: u32, body: &[u8]) {
        let mut bytes = vec![0; code::HEADER_SIZE];
        let mut put = |at: usize, value: &[u8]| {
            for (place, byte) in bytes.iter_mut().skip(at).zip(value) {
                *place = *byte;
            }
        };
        put(code::HEADER_TYPE, &code.to_le_bytes());
        if let Some(header) = job.header.filter(|h| h.flags & code::FLAG_FENCE != 0) {
            put(code::HEADER_FLAGS, &code::FLAG_FENCE.to_le_bytes());
            put(code::HEADER_FENCE, &header.fence.to_le_bytes());
            put(code::HEADER_CONTEXT, &header.context.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        let scenario = dma.env().scenario;
        let code = match (scenario.answer(AnswerOf::Response, &mut bytes), &*bytes) {
            (true, &[a, b, c, d, ..]) => u32::from_le_bytes([a, b, c, d]),
            _ => code,
        };
        job.stage = Stage::Respond {
            bytes,
            code,
            written: 0,
        };
        self.responded(dma, job);
    }

    /// If nothing is left to write, or nowhere: on to the used ring.
    fn responded(&mut self, dma: Dma<'_>, job: &mut Job) {
        let Stage::Respond { code, written, .. } = job.stage else {
            return;
        };
        if self.next_access(job).is_none() {
            self.told(dma, job.context, code);
            job.stage = Stage::Used(written);
        }
    }

    /// The stages that are ring operations and interrupts.
    fn housekeep(&mut self, dma: Dma<'_>, job: &mut Job) -> Option<Stepped> {
        match job.stage {
            Stage::Used(length) => {
                let mut answer = length.to_le_bytes();
                dma.env().scenario.answer(AnswerOf::Used, &mut answer);
                let length = u32::from_le_bytes(answer);
                let added = self.function.add_used(dma, job.queue, job.head, length);
                added.ok()?;
                job.stage = Stage::Ask;
            }
            Stage::Ask => match self.function.wants_interrupt(dma, job.queue) {
                Ok(true) => job.stage = Stage::Interrupt,
                Ok(false) | Err(_) => return None,
            },
            Stage::Interrupt => {
                self.function.interrupt(dma, job.queue);
                return None;
            }
            // A buffer with nothing to read: there is no command in it.
            Stage::Fetch(_) => self.fetched(dma, job),
            // Backing has a piece for each byte that was checked to be in it.
            Stage::Transfer(..) => self.respond(dma, job, code::ERR_UNSPEC),
            Stage::Respond { .. } => self.responded(dma, job),
        }
        Some(Stepped::Progress)
    }
}

/// What the scenario does to the device as it takes a command.
fn spoiled(dma: Dma<'_>, chain: &Chain) -> Option<What> {
    let site = Site {
        queue: Some(chain.queue),
        context: Some(chain.context.0),
        ..Site::new(SiteKind::Queue)
    };
    let injection = dma.env().scenario.inject(&site);
    injection.map(|injection| injection.outcome)
}

/// The piece of a buffer that starts at byte `offset`: in one segment and one
/// page.
fn piece(segments: &[Segment], mut offset: u64) -> Option<(Iova, u32)> {
    for segment in segments {
        let length = u64::from(segment.length);
        if offset < length {
            // A buffer must not wrap round the address space into what lies at
            // its start: the last address faults.
            let iova = Iova(segment.iova.0.saturating_add(offset));
            let length = (length - offset).min(PAGE_SIZE - iova.offset());
            return Some((iova, length as u32));
        }
        offset -= length;
    }
    None
}
