#![allow(clippy::unwrap_used)]

mod claims;
mod driver;
mod hostile;
mod injected;
mod launch;
mod protocol;
mod remapper;
mod rogue;

use crate::message::{self, Header};
use crate::server::{Ended, ServeConfig, Server};
use crate::{Handle, ServeError, spec};
use journal::{Event, Journal};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PAGE: u64 = 4096;
const RW: u32 = 3;

type Served = Result<Ended, ServeError>;

/// A scripted client, and the server that it talks to in a thread of its own.
struct Peer {
    stream: Option<UnixStream>,
    handle: Handle,
    server: Option<JoinHandle<Served>>,
    stop: Arc<AtomicBool>,
    journal: File,
    id: u16,
}

impl Peer {
    /// A client that has said nothing yet.
    fn silent() -> Self {
        let config = ServeConfig::default();
        Self::of(config, |server, stream, stop| server.serve(stream, stop))
    }

    /// The same, of a server that is set up and serves so.
    fn of(
        config: ServeConfig,
        serve: impl FnOnce(&mut Server, UnixStream, &AtomicBool) -> Served + Send + 'static,
    ) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // A server that does not answer fails the test instead of hanging it.
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let journal = tempfile::tempfile().unwrap();
        let to = Journal::to_file(journal.try_clone().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            let mut server = Server::new(&config, to).unwrap();
            sender.send(server.handle()).unwrap();
            serve(&mut server, theirs, &flag)
        });
        Self {
            stream: Some(ours),
            handle: receiver.recv().unwrap(),
            server: Some(server),
            stop,
            journal,
            id: 100,
        }
    }

    /// A client that has agreed on the version.
    fn agreed() -> Self {
        let mut peer = Self::silent();
        peer.call(spec::VERSION, &version(0, 0, b"{}\0")).unwrap();
        peer
    }

    /// And has mapped `pages` of its memory at IOVA 0x10000.
    fn with_memory(pages: u64) -> (Self, File) {
        let mut peer = Self::agreed();
        let memory = memory(pages);
        let map = map(RW, 0, 0x10000, pages * PAGE);
        peer.call_with(spec::DMA_MAP, &map, &[memory.as_fd()])
            .unwrap();
        (peer, memory)
    }

    fn stream(&self) -> &UnixStream {
        self.stream.as_ref().unwrap()
    }

    fn raw(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let slices = [IoSlice::new(bytes)];
        let flags = SendFlags::NOSIGNAL;
        let sent = rustix::net::sendmsg(self.stream(), &slices, &mut control, flags).unwrap();
        assert_eq!(sent, bytes.len());
    }

    fn receive(&self) -> (Header, Vec<u8>) {
        let mut head = [0; spec::HEADER];
        self.stream().read_exact(&mut head).unwrap();
        let header = Header::parse(&head);
        let mut body = vec![0; header.size as usize - spec::HEADER];
        self.stream().read_exact(&mut body).unwrap();
        (header, body)
    }

    /// Send a command and take its reply: the body, or the errno.
    fn call(&mut self, command: u16, body: &[u8]) -> Result<Vec<u8>, u32> {
        self.call_with(command, body, &[])
    }

    fn call_with(
        &mut self,
        command: u16,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, u32> {
        self.id += 1;
        self.raw(&message::command(self.id, command, body), files);
        let (header, body) = self.receive();
        assert_eq!((header.id, header.command), (self.id, command));
        assert!(header.is_reply());
        header.failure().map_or(Ok(body), Err)
    }

    /// How serving ended, once the client is gone.
    fn end(mut self) -> Served {
        self.stream = None;
        self.server.take().unwrap().join().unwrap()
    }

    /// How serving ended by itself, while the client lives.
    fn ended(mut self) -> Served {
        self.server.take().unwrap().join().unwrap()
    }

    /// Ends, and gives what is in the journal.
    fn events(self) -> Vec<Event> {
        let file = self.journal.try_clone().unwrap();
        self.end().unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let (records, _) = journal::read(&bytes[..]).unwrap();
        records.into_iter().map(|record| record.event).collect()
    }

    fn read_bar(&mut self, offset: u64, size: u32) -> u64 {
        self.read_region(0, offset, size)
    }

    fn read_region(&mut self, index: u32, offset: u64, size: u32) -> u64 {
        let body = self
            .call(spec::REGION_READ, &region(offset, index, size))
            .unwrap();
        let mut value = [0; 8];
        value[..size as usize].copy_from_slice(&body[16..]);
        u64::from_le_bytes(value)
    }

    fn write_bar(&mut self, offset: u64, bytes: &[u8]) {
        self.write_region(0, offset, bytes);
    }

    fn write_region(&mut self, index: u32, offset: u64, bytes: &[u8]) {
        let body = [region(offset, index, bytes.len() as u32), bytes.to_vec()].concat();
        self.call(spec::REGION_WRITE, &body).unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn version(major: u16, minor: u16, text: &[u8]) -> Vec<u8> {
    [&major.to_le_bytes()[..], &minor.to_le_bytes(), text].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn map(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let numbers = [offset, address, size].map(u64::to_le_bytes);
    [words(&[32, flags]), numbers.concat()].concat()
}

fn unmap(flags: u32, address: u64, size: u64) -> Vec<u8> {
    let numbers = [address, size].map(u64::to_le_bytes);
    [words(&[24, flags]), numbers.concat()].concat()
}

fn region(offset: u64, region: u32, count: u32) -> Vec<u8> {
    [offset.to_le_bytes().to_vec(), words(&[region, count])].concat()
}

/// A sealed memfd whose pages hold their number.
fn memory(pages: u64) -> File {
    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING | rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("ram", flags).unwrap());
    file.set_len(pages * PAGE).unwrap();
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::SHRINK).unwrap();
    for page in 0..pages {
        file.write_all_at(&[page as u8; PAGE as usize], page * PAGE)
            .unwrap();
    }
    file
}

fn event() -> OwnedFd {
    let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
    rustix::event::eventfd(0, flags).unwrap()
}

/// How often an event file was signalled since the last look.
fn signals(file: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(file, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}
