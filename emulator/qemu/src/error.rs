//! Why serving ended.

use memory::MemoryError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why serving a client ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The client closed the connection between two messages.
    #[error("the vfio-user client closed the connection")]
    Closed,
    /// It closed it inside one.
    #[error("the vfio-user client died in the middle of a message, after {bytes} bytes of it")]
    Torn {
        /// Bytes that came.
        bytes: usize,
    },
    /// The socket failed.
    #[error("the vfio-user socket failed: {0}")]
    Socket(io::Error),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {error}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The client reads nothing of what it is sent.
    #[error("the vfio-user client takes no messages: it hangs, or is stopped")]
    Deaf,
    /// Neither a command nor a reply.
    #[error("the vfio-user client sent what is no message (flags {0:#x}); the stream is lost")]
    NotAMessage(u32),
    /// A size that no message has.
    #[error("the vfio-user client sent a message of {0} bytes; the stream is lost")]
    BadSize(usize),
    /// More files than were agreed on.
    #[error("the vfio-user client sent more than {max} files with a message", max = crate::spec::MAX_FDS)]
    TooManyFiles,
    /// Another protocol.
    #[error("the vfio-user client speaks version {0}.{1}, dmasan 0.0")]
    Version(u16, u16),
    /// Guest memory that cannot be shared.
    #[error("guest memory: {0}")]
    Memory(#[from] MemoryError),
    /// Guest memory that is not shared.
    #[error(
        "QEMU's guest memory is private, so dmasan would read stale bytes: \
         give -object memory-backend-memfd,share=on"
    )]
    PrivateMemory,
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
}
