//! One connection: messages and files over a stream socket.

use crate::error::ServeError;
use crate::message::Header;
use crate::spec;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown,
};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A peer that takes nothing for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes read at once: many messages that map a page.
const ROOM: usize = 16 << 10;

/// A whole message.
#[derive(Debug)]
pub(crate) struct Message {
    pub header: Header,
    pub body: Vec<u8>,
    pub files: Vec<OwnedFd>,
}

/// A connection, and what came of it and is not taken yet. It never waits for
/// the rest of a message: a peer that sends half of one keeps nobody from
/// working.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// What was read and not yet taken: it begins with a message.
    received: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    /// Files, each with the end in `received` of the bytes that it came with:
    /// it belongs to the message that holds the last of them. The kernel ends
    /// a read where files came, and clients send a message in one piece.
    files: VecDeque<(usize, OwnedFd)>,
    /// What is read at once goes here first.
    room: Box<[u8; ROOM]>,
}

impl Connection {
    pub fn new(stream: UnixStream) -> Result<Self, ServeError> {
        stream
            .set_write_timeout(Some(SEND_TIMEOUT))
            .map_err(ServeError::Socket)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            taken: 0,
            files: VecDeque::new(),
            room: Box::new([0; ROOM]),
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Process id of the peer.
    pub fn peer(&self) -> Option<i32> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.stream).ok()?;
        Some(credentials.pid.as_raw_nonzero().get())
    }

    /// The next message, if all of it is here. `ready`: may there be
    /// something to read? It is so no longer once all was read.
    ///
    /// # Errors
    /// [`ServeError::Closed`], and what means that the stream cannot be
    /// understood any more.
    pub fn receive(&mut self, ready: &mut bool) -> Result<Option<Message>, ServeError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.received.drain(..self.taken);
            for (end, _) in &mut self.files {
                *end = end.saturating_sub(self.taken);
            }
            self.taken = 0;
            if !*ready {
                return Ok(None);
            }
            // What comes meanwhile, the next poll tells.
            *ready = self.fill()? == ROOM;
        }
    }

    /// The next message of what was read, if it is there.
    fn take(&mut self) -> Result<Option<Message>, ServeError> {
        let rest = self.received.get(self.taken..).unwrap_or_default();
        let Some(head) = rest.first_chunk::<{ spec::HEADER }>() else {
            return Ok(None);
        };
        let header = Header::parse(head);
        let size = checked_size(header)?;
        let Some(body) = rest.get(spec::HEADER..size) else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.taken += size;
        let mut files = Vec::new();
        while self
            .files
            .front()
            .is_some_and(|(end, _)| *end <= self.taken)
        {
            files.extend(self.files.pop_front().map(|(_, file)| file));
        }
        if files.len() > spec::MAX_FDS {
            return Err(ServeError::TooManyFiles);
        }
        Ok(Some(Message {
            header,
            body,
            files,
        }))
    }

    /// Read what there is, within limits: how many bytes, 0 if there is nothing
    /// now.
    fn fill(&mut self) -> Result<usize, ServeError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(spec::MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(self.room.as_mut_slice())];
        let got = match rustix::net::recvmsg(&self.stream, &mut slices, &mut control, flags) {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(Errno::CONNRESET) => return Err(self.closed()),
            Err(error) => return Err(ServeError::Socket(error.into())),
        };
        // What is kept is less than a message, so this is bounded.
        let bytes = self.room.get(..got.bytes).unwrap_or_default();
        self.received.extend_from_slice(bytes);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                let end = self.received.len();
                self.files.extend(files.map(|file| (end, file)));
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) || self.files.len() > 2 * spec::MAX_FDS {
            return Err(ServeError::TooManyFiles);
        }
        if got.bytes == 0 {
            return Err(self.closed());
        }
        Ok(got.bytes)
    }

    fn closed(&self) -> ServeError {
        match self.received.len() {
            0 => ServeError::Closed,
            bytes => ServeError::Torn { bytes },
        }
    }

    /// Send a whole message.
    ///
    /// # Errors
    /// [`ServeError::Closed`], [`ServeError::Socket`].
    pub fn send(&self, message: &[u8]) -> Result<(), ServeError> {
        let mut rest = message;
        while !rest.is_empty() {
            match rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ServeError::Closed),
                Err(Errno::AGAIN) => return Err(ServeError::Deaf),
                Err(error) => return Err(ServeError::Socket(error.into())),
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A peer that waits for a reply learns that none will come.
        let _ = rustix::net::shutdown(&self.stream, Shutdown::Both);
    }
}

/// The size of a message that can be one.
fn checked_size(header: Header) -> Result<usize, ServeError> {
    let kind = header.flags & spec::TYPE;
    if kind > spec::TYPE_REPLY {
        return Err(ServeError::NotAMessage(header.flags));
    }
    match header.size as usize {
        size @ spec::HEADER..=spec::MAX_MESSAGE => Ok(size),
        size => Err(ServeError::BadSize(size)),
    }
}
