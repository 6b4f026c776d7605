//! Serving one client.

use crate::board::{self, Board, Failure, Slot};
use crate::error::ServeError;
use crate::handle::{Handle, Order};
use crate::message::{Errno, Header, Request};
use crate::outgoing::{Ask, Outgoing};
use crate::spec;
use crate::wire::{Connection, Message};
use journal::Journal;
use journal::event::End;
use memory::RequesterId;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use scenario::Plan;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Messages taken in a row before the device has its turn.
const MESSAGES: usize = 64;
/// Steps of the device in a row before the next look at the socket.
const STEPS: usize = 64;
/// How often a thread that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What to serve.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Name of the machine, for the journal.
    pub name: String,
    /// Requester id of the device in the guest.
    pub device: RequesterId,
    /// Requester id of our own virtio-iommu; `None`: the client translates.
    pub iommu: Option<RequesterId>,
    /// Preferred sizes of its displays, pixels.
    pub displays: Vec<(u32, u32)>,
    /// Refuse drivers that do not take ACCESS_PLATFORM?
    pub require_access_platform: bool,
    /// Offer blob resources?
    pub blobs: bool,
    /// Guest RAM, bytes; for the journal.
    pub memory: u64,
    /// Of so much RAM, how much lies below 4 GiB.
    pub below_4g: fn(u64) -> u64,
    /// The scenario whose faults are injected: [`crate::check_plan`].
    pub plan: Option<Plan>,
}

impl Default for ServeConfig {
    /// Device 00:01.0 of a q35 machine, one display of 1024 x 768.
    fn default() -> Self {
        Self {
            name: "guest".to_owned(),
            device: RequesterId::new(0, 1, 0),
            iommu: None,
            displays: vec![(1024, 768)],
            require_access_platform: true,
            blobs: true,
            memory: 0,
            below_4g: board::q35_below_4g,
            plan: None,
        }
    }
}

/// How serving ended, where nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client closed the connection.
    Closed,
    /// It was told to stop.
    Stopped,
}

/// The devices, and what asks things of them.
pub struct Server {
    board: Board,
    /// What the GPU asks of its client.
    outgoing: Outgoing,
    orders: Receiver<Order>,
    handle: Handle,
    wake: Arc<OwnedFd>,
}

/// One function's side of the conversation.
struct Line {
    slot: Slot,
    /// Where its client will come, until it has.
    listener: Option<UnixListener>,
    connection: Option<Connection>,
    peer: Option<i32>,
    /// Did the client say which version it speaks?
    agreed: bool,
    /// May there be something to read?
    ready: bool,
}

impl Line {
    fn connected(slot: Slot, stream: UnixStream) -> Result<Self, ServeError> {
        let connection = Connection::new(stream)?;
        Ok(Self {
            slot,
            listener: None,
            peer: connection.peer(),
            connection: Some(connection),
            agreed: false,
            ready: true,
        })
    }

    fn expected(slot: Slot, listener: UnixListener) -> Result<Self, ServeError> {
        listener.set_nonblocking(true).map_err(ServeError::Socket)?;
        Ok(Self {
            slot,
            listener: Some(listener),
            peer: None,
            connection: None,
            agreed: false,
            ready: true,
        })
    }

    /// Take the client in, if it has come.
    fn welcome(&mut self) -> Result<(), ServeError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        if let Some(stream) = try_accept(listener)? {
            // A second client finds nobody to talk to.
            *self = Self::connected(self.slot, stream)?;
        }
        Ok(())
    }

    /// What wakes the server for it.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let connection = self.connection.as_ref().map(Connection::fd);
        connection.or(self.listener.as_ref().map(AsFd::as_fd))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// A device after power-on; what happens to it goes to `journal`.
    ///
    /// # Errors
    /// [`ServeError::Memory`], [`ServeError::Socket`],
    /// [`ServeError::Journal`].
    pub fn new(config: &ServeConfig, journal: Journal) -> Result<Self, ServeError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).map_err(|error| ServeError::Socket(error.into()))?;
        let wake = Arc::new(wake);
        let (sender, orders) = channel();
        journal.compact();
        Ok(Self {
            board: Board::new(config, journal)?,
            outgoing: Outgoing::default(),
            orders,
            handle: Handle::new(sender, wake.clone()),
            wake,
        })
    }

    /// A way for other threads to ask.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What a scanout shows, with the cursor.
    #[must_use]
    pub fn frame(&self, scanout: u32) -> Option<gpu::Frame> {
        self.board.frame(scanout)
    }

    /// Wait for a client at `listener`. `None`: `alive` said that none will
    /// come any more.
    ///
    /// # Errors
    /// [`ServeError::Socket`].
    pub fn accept(
        listener: &UnixListener,
        alive: &mut dyn FnMut() -> bool,
    ) -> Result<Option<UnixStream>, ServeError> {
        listener.set_nonblocking(true).map_err(ServeError::Socket)?;
        while alive() {
            wait(&[listener.as_fd()], Some(LOOK))?;
            if let Some(stream) = try_accept(listener)? {
                return Ok(Some(stream));
            }
        }
        Ok(None)
    }

    /// Listen at `path`, which must not exist.
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    pub fn listen(path: &Path) -> Result<UnixListener, ServeError> {
        UnixListener::bind(path).map_err(|error| ServeError::Listen {
            path: path.to_owned(),
            error,
        })
    }

    /// Serve the GPU until the client goes or `stop` is set. The journal gets
    /// its end in either case.
    ///
    /// # Errors
    /// [`ServeError`]: what the client did that ends it.
    pub fn serve(&mut self, stream: UnixStream, stop: &AtomicBool) -> Result<Ended, ServeError> {
        self.serve_lines(vec![Line::connected(Slot::Gpu, stream)?], stop)
    }

    /// The same with our virtio-iommu, whose client is there, while that of
    /// the GPU will come at a listener: QEMU makes its devices one after the
    /// other, each with a conversation.
    ///
    /// # Errors
    /// As [`Server::serve`].
    pub fn serve_both(
        &mut self,
        iommu: UnixStream,
        gpu: UnixListener,
        stop: &AtomicBool,
    ) -> Result<Ended, ServeError> {
        let iommu = Line::connected(Slot::Iommu, iommu)?;
        self.serve_lines(vec![iommu, Line::expected(Slot::Gpu, gpu)?], stop)
    }

    fn serve_lines(&mut self, lines: Vec<Line>, stop: &AtomicBool) -> Result<Ended, ServeError> {
        let ended = match self.run(lines, stop) {
            Err(ServeError::Closed) => Ok(Ended::Closed),
            other => other,
        };
        match &ended {
            Ok(Ended::Closed) => self.board.end(End::Completed)?,
            Ok(Ended::Stopped) => self.board.end(End::Interrupted)?,
            Err(error) => {
                self.board.note(format!("serving ended: {error}"));
                self.board.end(End::Interrupted)?;
            }
        }
        ended
    }

    fn run(&mut self, mut lines: Vec<Line>, stop: &AtomicBool) -> Result<Ended, ServeError> {
        while !stop.load(Ordering::Relaxed) {
            self.board.tick();
            let mut messages = 0;
            for line in &mut lines {
                line.welcome()?;
                messages = self.listen_to(line)?.max(messages);
            }
            self.follow_orders();
            let (mut steps, mut done) = (0, false);
            while !done && steps < STEPS && !self.board.owes_interrupt() {
                done = !self.board.step();
                steps += 1;
            }
            self.board.remap();
            self.tell_guest_of_refusals();
            self.board.flush()?;
            self.board.interrupt();
            let gpu = lines.iter().find(|line| line.slot == Slot::Gpu);
            if let Some(connection) = gpu.and_then(|line| line.connection.as_ref()) {
                while let Some(message) = self.outgoing.next() {
                    connection.send(&message)?;
                }
            }
            let limit = if messages == MESSAGES || !done {
                Duration::ZERO
            } else {
                let due = self.board.idle_for().map(Duration::from_nanos);
                due.map_or(LOOK, |due| due.min(LOOK))
            };
            self.await_something(&mut lines, limit)?;
        }
        Ok(Ended::Stopped)
    }

    /// Wait until a client or another thread has something for us, or the
    /// time is over.
    fn await_something(&self, lines: &mut [Line], limit: Duration) -> Result<(), ServeError> {
        // A line without a file says nothing: its flag stays.
        let files = lines.iter().filter_map(Line::fd);
        let files: Vec<_> = [self.wake.as_fd()]
            .into_iter()
            .chain(files)
            .chain(self.board.watched())
            .collect();
        let ready = wait(&files, Some(limit))?;
        drop(files);
        let mut ready = ready.into_iter();
        if ready.next() == Some(true) {
            // The orders are seen in the next round.
            let _ = rustix::io::read(&*self.wake, &mut [0u8; 8]);
        }
        let with_file = lines.iter_mut().filter(|line| line.fd().is_some());
        for (line, ready) in with_file.zip(ready) {
            line.ready = ready;
        }
        Ok(())
    }

    /// Do what a client asks, but no more than [`MESSAGES`]; how many that
    /// were.
    fn listen_to(&mut self, line: &mut Line) -> Result<usize, ServeError> {
        let Some(connection) = &mut line.connection else {
            return Ok(0);
        };
        let mut messages = 0;
        while messages < MESSAGES {
            let Some(message) = connection.receive(&mut line.ready)? else {
                break;
            };
            messages += 1;
            let to = (line.slot, line.peer);
            self.take(connection, &mut line.agreed, message, to)?;
        }
        Ok(messages)
    }

    /// One message of the client's.
    fn take(
        &mut self,
        connection: &Connection,
        agreed: &mut bool,
        message: Message,
        (slot, peer): (Slot, Option<i32>),
    ) -> Result<(), ServeError> {
        let header = message.header;
        if header.is_reply() {
            if slot != Slot::Gpu {
                log::debug!("a reply to the virtio-iommu, which asks nothing");
                return Ok(());
            }
            self.answered(header, &message.body);
            return Ok(());
        }
        let result = match Request::parse(header.command, &message.body) {
            Err(errno) => Err(Failure::Refused(errno)),
            Ok(Request::Version {
                major,
                minor,
                capabilities,
            }) if !*agreed => match agree(major, minor, capabilities) {
                Some(body) => {
                    *agreed = true;
                    Ok(body)
                }
                None => Err(Failure::Fatal(ServeError::Version(major, minor))),
            },
            // Nothing is said before the version.
            Ok(_) if !*agreed => Err(Failure::Refused(Errno::INVAL)),
            Ok(request) => self.board.handle(slot, request, message.files, peer),
        };
        // What the client does next may be seen by the guest.
        self.board.flush()?;
        self.board.interrupt();
        let (reply, fatal) = match result {
            Ok(body) => (header.reply(&body), None),
            Err(Failure::Refused(errno)) => {
                log::debug!("command {} refused, errno {}", header.command, errno.0);
                (header.refusal(errno), None)
            }
            Err(Failure::Fatal(error)) => (header.refusal(Errno::INVAL), Some(error)),
        };
        if header.wants_reply() {
            connection.send(&reply)?;
        }
        fatal.map_or(Ok(()), Err)
    }

    /// A reply to something of ours.
    fn answered(&mut self, header: Header, body: &[u8]) {
        let Some((ask, outcome)) = self.outgoing.answered(header, body) else {
            log::debug!("a reply to nothing that was asked (id {})", header.id);
            return;
        };
        if ask.answer.is_none() && outcome.is_ok() {
            // The guest mapped it in between, or the mirror is wrong.
            self.board.note(format!(
                "the guest's IOMMU let the device through to {:#x}, which the mirrored domain had \
                 refused",
                ask.address
            ));
        }
    }

    fn follow_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Access {
                    iova,
                    length,
                    data,
                    answer,
                } => {
                    let _ = answer.send(self.board.access(iova, length, data.as_deref()));
                }
                Order::Ask(ask) => match self.board.peer_access(&ask) {
                    Some(outcome) => {
                        if let Some(answer) = &ask.answer {
                            // Who asked may have given up.
                            let _ = answer.send(outcome);
                        }
                    }
                    None => self.outgoing.push(ask),
                },
                Order::Frame { scanout, answer } => {
                    let _ = answer.send(self.board.frame(scanout));
                }
                Order::Mappings { answer } => {
                    let _ = answer.send(self.board.mappings());
                }
                Order::Work(work) => (work.0)(&mut self.board),
            }
        }
    }

    /// Each access that the mirror refused is done once more by the client,
    /// whose remapping unit then refuses it too and tells the guest. A write
    /// is of one zero byte, and only while the mirror still refuses it: should
    /// the guest map the page at that very moment, little is lost.
    fn tell_guest_of_refusals(&mut self) {
        for access in self.board.take_refused() {
            self.outgoing.push(Ask {
                address: access.iova.0,
                count: if access.write { 1 } else { access.length },
                data: access.write.then(|| vec![0]),
                answer: None,
            });
        }
    }
}

/// The answer to the client's version; `None` if it speaks another.
fn agree(major: u16, minor: u16, capabilities: &[u8]) -> Option<Vec<u8>> {
    // What the client offers is more than we use, or less than we send: we
    // send no files, and single pages.
    if !capabilities.is_empty() {
        let offered: serde_json::Value = serde_json::from_slice(capabilities).ok()?;
        log::debug!("the client speaks {major}.{minor} and offers {offered}");
    }
    if major != 0 {
        return None;
    }
    let ours = serde_json::json!({
        "capabilities": {
            "max_msg_fds": spec::MAX_FDS,
            "max_data_xfer_size": spec::MAX_TRANSFER,
        }
    });
    let mut body = [0u8; 4].to_vec();
    body.extend_from_slice(ours.to_string().as_bytes());
    body.push(0);
    Some(body)
}

/// A client that waits at a listener, which does not block.
fn try_accept(listener: &UnixListener) -> Result<Option<UnixStream>, ServeError> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false).map_err(ServeError::Socket)?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(ServeError::Socket(error)),
    }
}

/// Wait until one of them can be read, or the time is over. Which can.
fn wait(files: &[BorrowedFd<'_>], limit: Option<Duration>) -> Result<Vec<bool>, ServeError> {
    let mut polled: Vec<PollFd<'_>> = files
        .iter()
        .map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN))
        .collect();
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut polled, limit.as_ref()) {
        // Also an end or an error: reading says which.
        Ok(_) => Ok(polled.iter().map(|p| !p.revents().is_empty()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![false; files.len()]),
        Err(error) => Err(ServeError::Socket(error.into())),
    }
}
