//! What other threads ask of the one that serves.

use crate::board::{Board, Look, RequestQueue, Unmapped};
use crate::outgoing::{Ask, Outcome};
use gpu::{Frame, ResourceFacts};
use iommu::Mapping;
use memory::{GuestMemory, Iova};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use thiserror::Error;

/// How long an answer may take: longer than QEMU's patience with us.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why nothing came of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandleError {
    /// Nobody serves any more, or the peer does not answer.
    #[error("no answer: the guest is gone, or hangs")]
    NoAnswer,
    /// The access was refused.
    #[error("{0}")]
    Refused(String),
}

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Access memory as the device, by what the mirror says.
    Access {
        iova: Iova,
        length: u32,
        data: Option<Vec<u8>>,
        answer: Sender<Result<Vec<u8>, String>>,
    },
    /// Let the client access it.
    Ask(Ask),
    Frame {
        scanout: u32,
        answer: Sender<Option<Frame>>,
    },
    Mappings {
        answer: Sender<Vec<Mapping>>,
    },
    /// Anything else.
    Work(Work),
}

/// What the serving thread does between two messages.
pub(crate) struct Work(pub Box<dyn FnOnce(&mut Board) + Send>);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

/// A way to ask the serving thread from any other.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
}

impl Handle {
    pub(crate) fn new(orders: Sender<Order>, wake: Arc<OwnedFd>) -> Self {
        Self { orders, wake }
    }

    fn ask<T>(&self, order: Order, answer: &Receiver<T>) -> Result<T, HandleError> {
        self.orders.send(order).map_err(|_| HandleError::NoAnswer)?;
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        answer.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => HandleError::NoAnswer,
        })
    }

    /// Read as the device does: a refusal is a fault like any other, in the
    /// journal and in the guest.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn device_read(&self, iova: Iova, length: u32) -> Result<Vec<u8>, HandleError> {
        self.access(iova, length, None)
    }

    /// Write as the device does.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn device_write(&self, iova: Iova, data: Vec<u8>) -> Result<(), HandleError> {
        self.access(iova, data.len() as u32, Some(data)).map(drop)
    }

    fn access(
        &self,
        iova: Iova,
        length: u32,
        data: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, HandleError> {
        let (answer, answered) = channel();
        let order = Order::Access {
            iova,
            length,
            data,
            answer,
        };
        self.ask(order, &answered)?.map_err(HandleError::Refused)
    }

    /// Let the client read for the device (DMA_READ): through the guest's
    /// IOMMU, whatever the mirror says.
    ///
    /// # Errors
    /// [`HandleError`]; QEMU refuses with ENODEV whatever the reason.
    pub fn peer_read(&self, iova: Iova, length: u32) -> Result<Vec<u8>, HandleError> {
        self.peer(iova, length, None)
    }

    /// Let the client write for the device (DMA_WRITE).
    ///
    /// # Errors
    /// As [`Handle::peer_read`].
    pub fn peer_write(&self, iova: Iova, data: Vec<u8>) -> Result<(), HandleError> {
        self.peer(iova, data.len() as u32, Some(data)).map(drop)
    }

    fn peer(&self, iova: Iova, count: u32, data: Option<Vec<u8>>) -> Result<Vec<u8>, HandleError> {
        if count as usize > crate::spec::MAX_TRANSFER {
            let why = format!("{count} bytes are more than a message holds");
            return Err(HandleError::Refused(why));
        }
        let (answer, answered) = channel::<Outcome>();
        let ask = Ask {
            address: iova.0,
            count,
            data,
            answer: Some(answer),
        };
        self.ask(Order::Ask(ask), &answered)?
            .map_err(|errno| HandleError::Refused(format!("refused by the guest, errno {errno}")))
    }

    /// What a scanout shows, with the cursor.
    ///
    /// # Errors
    /// [`HandleError::NoAnswer`].
    pub fn frame(&self, scanout: u32) -> Result<Option<Frame>, HandleError> {
        let (answer, answered) = channel();
        self.ask(Order::Frame { scanout, answer }, &answered)
    }

    /// What the device may reach now.
    ///
    /// # Errors
    /// [`HandleError::NoAnswer`].
    pub fn mappings(&self) -> Result<Vec<Mapping>, HandleError> {
        let (answer, answered) = channel();
        self.ask(Order::Mappings { answer }, &answered)
    }

    /// Let the serving thread do something with the device.
    fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Board) -> T + Send + 'static,
    ) -> Result<T, HandleError> {
        let (answer, answered) = channel();
        let work = Work(Box::new(move |board| {
            let _ = answer.send(work(board));
        }));
        self.ask(Order::Work(work), &answered)
    }

    /// What the device may reach, and what of it is its business.
    pub(crate) fn look(&self) -> Result<Look, HandleError> {
        self.work(Board::look)
    }

    /// Look at guest memory.
    pub(crate) fn see<T: Send + 'static>(
        &self,
        see: impl FnOnce(&GuestMemory) -> T + Send + 'static,
    ) -> Result<T, HandleError> {
        self.work(move |board| see(board.memory()))
    }

    /// The device's resources.
    ///
    /// # Errors
    /// [`HandleError::NoAnswer`].
    pub fn resources(&self) -> Result<Vec<ResourceFacts>, HandleError> {
        self.work(|board| board.resources())
    }

    /// The queue of our own remapping unit, if it is set up.
    pub(crate) fn request_queue(&self) -> Result<Option<RequestQueue>, HandleError> {
        self.work(|board| board.request_queue())
    }

    /// Each unmap from now on, by whomever.
    pub(crate) fn unmaps(&self) -> Result<Receiver<Unmapped>, HandleError> {
        let (watcher, unmaps) = channel();
        self.work(move |board| board.watch(watcher))?;
        Ok(unmaps)
    }

    /// Write something into the journal.
    pub(crate) fn note(&self, text: String) -> Result<(), HandleError> {
        self.work(move |board| board.note(text))
    }

    /// Let the device read what backed a resource before the driver took it
    /// away. What came of it, in words.
    ///
    /// # Errors
    /// [`HandleError`]; nothing was taken away.
    pub fn replay(&self, resource: u32) -> Result<String, HandleError> {
        self.work(move |board| board.replay(resource))?
            .map_err(HandleError::Refused)
    }

    /// Let the device use a queue's rings as they were before the last reset.
    /// What came of it, in words.
    ///
    /// # Errors
    /// [`HandleError`]; the queue was never reset.
    pub fn use_former_rings(&self, queue: u16) -> Result<String, HandleError> {
        self.work(move |board| board.use_former_rings(queue))?
            .map_err(HandleError::Refused)
    }

    /// Let the device do nothing, so that what is asked of it waits; or work
    /// again.
    ///
    /// # Errors
    /// [`HandleError::NoAnswer`].
    pub fn stall(&self, stalled: bool) -> Result<(), HandleError> {
        self.work(move |board| board.stall(stalled))
    }

    /// Let the device keep the translations of a range, whatever is unmapped
    /// later. How many pages that are.
    ///
    /// # Errors
    /// [`HandleError`]; nothing is mapped there.
    pub fn hold(&self, iova: Iova, length: u64) -> Result<usize, HandleError> {
        self.work(move |board| board.hold(iova, length))?
            .map_err(HandleError::Refused)
    }

    /// Let the device read by a translation that it kept.
    ///
    /// # Errors
    /// [`HandleError`]; none was kept.
    pub fn late_read(&self, iova: Iova, length: u32) -> Result<Vec<u8>, HandleError> {
        self.work(move |board| board.late(iova, length.min(4096), None))?
            .map_err(HandleError::Refused)
    }

    /// Let the device write by a translation that it kept.
    ///
    /// # Errors
    /// As [`Handle::late_read`].
    pub fn late_write(&self, iova: Iova, data: Vec<u8>) -> Result<(), HandleError> {
        self.work(move |board| board.late(iova, data.len() as u32, Some(&data)))?
            .map(drop)
            .map_err(HandleError::Refused)
    }
}
