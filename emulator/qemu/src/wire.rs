//! One connection: messages and files over a stream socket.

use crate::error::ServeError;
use crate::message::Header;
use crate::spec;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A peer that takes nothing for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// A whole message.
#[derive(Debug)]
pub(crate) struct Message {
    pub header: Header,
    pub body: Vec<u8>,
    pub files: Vec<OwnedFd>,
}

/// A connection, and the part of a message that has come so far. It never
/// waits for the rest: a peer that sends half a message keeps nobody from
/// working.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Connection {
    pub fn new(stream: UnixStream) -> Result<Self, ServeError> {
        stream
            .set_write_timeout(Some(SEND_TIMEOUT))
            .map_err(ServeError::Socket)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            files: Vec::new(),
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

    /// The next message, if all of it is here.
    ///
    /// # Errors
    /// [`ServeError::Closed`], and what means that the stream cannot be
    /// understood any more.
    pub fn receive(&mut self) -> Result<Option<Message>, ServeError> {
        loop {
            let size = match self.received.first_chunk::<{ spec::HEADER }>() {
                None => spec::HEADER,
                Some(bytes) => {
                    let header = Header::parse(bytes);
                    let size = checked_size(header)?;
                    if size == self.received.len() {
                        let body = self.received.split_off(spec::HEADER);
                        self.received.clear();
                        let files = std::mem::take(&mut self.files);
                        return Ok(Some(Message {
                            header,
                            body,
                            files,
                        }));
                    }
                    size
                }
            };
            // Never past the end of this message: files belong to the message
            // with whose bytes they come.
            if !self.fill(size - self.received.len())? {
                return Ok(None);
            }
        }
    }

    /// Read up to `missing` bytes; false if there are none now.
    fn fill(&mut self, missing: usize) -> Result<bool, ServeError> {
        // Room grows with what comes, not with what a header promises.
        let mut bytes = [0; 16 << 10];
        let length = missing.min(bytes.len());
        let room = bytes.get_mut(..length).unwrap_or_default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(spec::MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(room)];
        let got = match rustix::net::recvmsg(&self.stream, &mut slices, &mut control, flags) {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(Errno::CONNRESET) => return Err(self.closed()),
            Err(error) => return Err(ServeError::Socket(error.into())),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) || self.files.len() > spec::MAX_FDS {
            return Err(ServeError::TooManyFiles);
        }
        if got.bytes == 0 {
            return Err(self.closed());
        }
        let bytes = bytes.get(..got.bytes).unwrap_or_default();
        self.received.extend_from_slice(bytes);
        Ok(true)
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
