//! Interrupts towards the client: an event file for INTx and for each MSI-X
//! vector.

use crate::message::Errno;
use crate::spec::uapi;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::read_link;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What a SET_IRQS changed in what the device must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Nothing,
    /// These vectors got or lost their files.
    Vectors,
}

/// The event files, and the mask of INTx.
#[derive(Debug)]
pub(crate) struct Interrupts {
    intx: Option<OwnedFd>,
    /// INTx masks itself as it fires (VFIO_IRQ_INFO_AUTOMASKED): until the
    /// client says that the guest has seen it.
    intx_masked: bool,
    /// Signalled when the guest has seen it: how KVM says so by itself.
    unmask: Option<OwnedFd>,
    vectors: Vec<Option<OwnedFd>>,
}

/// One SET_IRQS.
pub(crate) struct SetIrqs<'a> {
    pub flags: u32,
    pub index: u32,
    pub start: u32,
    pub count: u32,
    pub data: &'a [u8],
    pub files: Vec<OwnedFd>,
}

impl Interrupts {
    pub fn new(vectors: u16) -> Self {
        Self {
            intx: None,
            intx_masked: false,
            unmask: None,
            vectors: (0..vectors).map(|_| None).collect(),
        }
    }

    /// How many interrupts of a kind there are, and its `VFIO_IRQ_INFO_*`.
    pub fn info(&self, index: u32) -> Option<(u32, u32)> {
        let level = uapi::VFIO_IRQ_INFO_MASKABLE | uapi::VFIO_IRQ_INFO_AUTOMASKED;
        match index {
            uapi::VFIO_PCI_INTX_IRQ_INDEX => Some((1, uapi::VFIO_IRQ_INFO_EVENTFD | level)),
            uapi::VFIO_PCI_MSIX_IRQ_INDEX => Some((
                self.vectors.len() as u32,
                uapi::VFIO_IRQ_INFO_EVENTFD | uapi::VFIO_IRQ_INFO_NORESIZE,
            )),
            index if index < uapi::VFIO_PCI_NUM_IRQS => Some((0, 0)),
            _ => None,
        }
    }

    /// Has vector `number` a file?
    pub fn is_connected(&self, number: usize) -> bool {
        matches!(self.vectors.get(number), Some(Some(_)))
    }

    pub fn vectors(&self) -> usize {
        self.vectors.len()
    }

    /// The device was reset: nothing is asserted.
    pub fn reset(&mut self) {
        self.intx_masked = false;
    }

    /// A message of vector `number`.
    pub fn message(&self, number: u32) {
        if let Some(Some(file)) = self.vectors.get(number as usize) {
            signal(file);
        }
    }

    /// INTx# is asserted, or is not.
    pub fn level(&mut self, asserted: bool) {
        let seen = self.unmask.as_ref().is_some_and(|file| {
            // Never waits: event files were made so when they came.
            rustix::io::read(file, &mut [0u8; 8]).is_ok()
        });
        if seen {
            self.intx_masked = false;
        }
        if !asserted {
            return;
        }
        if let Some(file) = self.intx.as_ref().filter(|_| !self.intx_masked) {
            self.intx_masked = true;
            signal(file);
        }
    }

    pub fn set(&mut self, irqs: SetIrqs<'_>) -> Result<Changed, Errno> {
        let (there, _) = self.info(irqs.index).ok_or(Errno::INVAL)?;
        let end = irqs.start.checked_add(irqs.count).ok_or(Errno::INVAL)?;
        if end > there {
            return Err(Errno::INVAL);
        }
        let kind = irqs.flags & uapi::VFIO_IRQ_SET_DATA_TYPE_MASK;
        let with_files = kind == uapi::VFIO_IRQ_SET_DATA_EVENTFD;
        if !with_files && !irqs.files.is_empty() {
            return Err(Errno::INVAL);
        }
        match irqs.flags & uapi::VFIO_IRQ_SET_ACTION_TYPE_MASK {
            uapi::VFIO_IRQ_SET_ACTION_TRIGGER if with_files => self.connect(irqs),
            uapi::VFIO_IRQ_SET_ACTION_TRIGGER if irqs.count == 0 => {
                self.disconnect(irqs.index, 0, there);
                Ok(Changed::Vectors)
            }
            uapi::VFIO_IRQ_SET_ACTION_TRIGGER => {
                for number in irqs.start..end {
                    if chosen(&irqs, kind, number) {
                        self.fire(irqs.index, number);
                    }
                }
                Ok(Changed::Nothing)
            }
            uapi::VFIO_IRQ_SET_ACTION_UNMASK if with_files => self.watch(irqs),
            _ if with_files => Err(Errno::NOTSUP),
            uapi::VFIO_IRQ_SET_ACTION_MASK => self.mask(&irqs, kind, true),
            uapi::VFIO_IRQ_SET_ACTION_UNMASK => self.mask(&irqs, kind, false),
            _ => Err(Errno::INVAL),
        }
    }

    /// A file for each of `count` interrupts, or none at all: take theirs
    /// away.
    fn connect(&mut self, irqs: SetIrqs<'_>) -> Result<Changed, Errno> {
        if irqs.files.is_empty() {
            self.disconnect(irqs.index, irqs.start, irqs.start + irqs.count);
            return Ok(Changed::Vectors);
        }
        if irqs.files.len() != irqs.count as usize || !irqs.files.iter().all(is_event) {
            return Err(Errno::INVAL);
        }
        let mut files = irqs.files.into_iter();
        if irqs.index == uapi::VFIO_PCI_INTX_IRQ_INDEX {
            self.intx = files.next();
            self.intx_masked = false;
            return Ok(Changed::Nothing);
        }
        let places = self.vectors.iter_mut().skip(irqs.start as usize);
        for (place, file) in places.zip(files) {
            *place = Some(file);
        }
        Ok(Changed::Vectors)
    }

    /// A file that unmasks INTx, or none any more.
    fn watch(&mut self, irqs: SetIrqs<'_>) -> Result<Changed, Errno> {
        let one = irqs.files.len() <= 1 && irqs.files.iter().all(is_event);
        if irqs.index != uapi::VFIO_PCI_INTX_IRQ_INDEX || !one {
            return Err(Errno::INVAL);
        }
        self.unmask = irqs.files.into_iter().next();
        Ok(Changed::Nothing)
    }

    /// The file to wait for beside the socket.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.unmask.as_ref().map(AsFd::as_fd)
    }

    fn disconnect(&mut self, index: u32, start: u32, end: u32) {
        match index {
            uapi::VFIO_PCI_INTX_IRQ_INDEX => self.intx = None,
            uapi::VFIO_PCI_MSIX_IRQ_INDEX => {
                let range = start as usize..end as usize;
                self.vectors
                    .get_mut(range)
                    .unwrap_or_default()
                    .fill_with(|| None);
            }
            _ => {}
        }
    }

    fn fire(&self, index: u32, number: u32) {
        match index {
            uapi::VFIO_PCI_INTX_IRQ_INDEX => {
                if let Some(file) = &self.intx {
                    signal(file);
                }
            }
            _ => self.message(number),
        }
    }

    fn mask(&mut self, irqs: &SetIrqs<'_>, kind: u32, masked: bool) -> Result<Changed, Errno> {
        if irqs.index != uapi::VFIO_PCI_INTX_IRQ_INDEX {
            return Err(Errno::INVAL);
        }
        if irqs.count == 1 && chosen(irqs, kind, 0) {
            self.intx_masked = masked;
        }
        Ok(Changed::Nothing)
    }
}

/// Does the message mean this interrupt?
fn chosen(irqs: &SetIrqs<'_>, kind: u32, number: u32) -> bool {
    kind != uapi::VFIO_IRQ_SET_DATA_BOOL
        || irqs
            .data
            .get((number - irqs.start) as usize)
            .is_some_and(|&b| b != 0)
}

/// Is this an event file, which we can write without ever waiting? Anything
/// else (a pipe that is full) could stop us.
fn is_event(file: &OwnedFd) -> bool {
    let link = read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.is_ok_and(|target| target.to_string_lossy().starts_with("anon_inode:[eventfd]"))
        && fcntl_getfl(file).is_ok_and(|flags| fcntl_setfl(file, flags | OFlags::NONBLOCK).is_ok())
}

fn signal(file: &OwnedFd) {
    // Full: it has been signalled, and nobody has looked.
    let _ = rustix::io::write(file, &1u64.to_ne_bytes());
}
