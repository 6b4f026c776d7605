//! Reading pictures from blobs in guest memory: at each vsync of virtual
//! time, every scanout that shows one reads it anew, as display hardware
//! does. A page piece is a step.

use crate::blob::Layout;
use crate::device::Gpu;
use crate::resource::Transfer;
use crate::spec::command as code;
use crate::spec::format::BYTES;
use crate::tell::learnt;
use crate::{Stepped, VirtioGpu};
use iommu::{Dma, Fault, Issued, Landing};
use journal::event::{ContextId, Event, TokenId};
use scenario::SiteKind;

/// Virtual nanoseconds from vsync to vsync: 60 Hz. They fall on its
/// multiples.
pub const VSYNC_PERIOD: u64 = 16_666_667;
/// The name of a vsync's reads in the journal.
pub(crate) const NAME: &str = "SCANOUT (vsync)";

/// What is under way of it. Plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Vsync {
    /// Number of the last vsync, counted from time 0.
    last: u64,
    /// Scanouts that this vsync has yet to read, a bit each.
    todo: u32,
    scan: Option<Scan>,
    /// Does the next step belong to it, if commands want one too?
    pub(crate) turn: bool,
}

/// A scanout that is being read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scan {
    scanout: u32,
    context: ContextId,
    transfer: Transfer,
    layout: Layout,
    flight: Option<TokenId>,
}

impl Vsync {
    /// Something is shown from a blob, for the first time in a while: it is
    /// read at the next vsync.
    pub(crate) fn start(&mut self, now: u64) {
        self.last = now / VSYNC_PERIOD;
    }

    /// When the next one is.
    pub(crate) fn next(&self) -> u64 {
        self.last.saturating_add(1).saturating_mul(VSYNC_PERIOD)
    }

    /// Has one begun and not ended?
    pub(crate) fn is_busy(&self) -> bool {
        self.scan.is_some() || self.todo != 0
    }

    pub(crate) fn in_flight(&self) -> bool {
        self.scan.as_ref().is_some_and(|scan| scan.flight.is_some())
    }

    /// A scanout shows something else: what is read of it is read no further.
    pub(crate) fn changed(&mut self, scanout: u32) {
        self.scan.take_if(|scan| scan.scanout == scanout);
    }

    /// A resource is gone, or its backing is: not a byte more of it is read.
    pub(crate) fn forget(&mut self, resource: u32) {
        self.scan.take_if(|scan| scan.transfer.resource == resource);
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Gpu {
    /// Does scanout `number` show a blob that can be read?
    fn shows_blob(&self, number: usize) -> Option<(u32, Layout)> {
        let scanout = self.scanouts.get(number)?;
        let layout = scanout.layout?;
        self.resources.get(&scanout.resource)?.backing.as_ref()?;
        Some((scanout.resource, layout))
    }

    /// Does any?
    pub(crate) fn is_scanned_out(&self) -> bool {
        (0..self.scanouts.len()).any(|number| self.shows_blob(number).is_some())
    }

    /// A vsync: every scanout that shows a blob is to be read. Those that were
    /// missed are not made up for.
    fn begin_vsync(&mut self, now: u64) {
        self.vsync.last = now / VSYNC_PERIOD;
        self.vsync.todo = (0..self.scanouts.len())
            .filter(|&number| self.shows_blob(number).is_some())
            .fold(0, |todo, number| todo | 1 << number);
    }

    /// The next scanout to read; none if it shows no blob any more.
    fn next_scan(&mut self) -> Option<Scan> {
        let number = self.vsync.todo.trailing_zeros();
        self.vsync.todo &= self.vsync.todo.wrapping_sub(1);
        let (resource, layout) = self.shows_blob(number as usize)?;
        let scanout = self.scanouts.get_mut(number as usize)?;
        scanout.frame_to_fill();
        let row = u64::from(scanout.rect.width) * u64::from(BYTES);
        let rows = u64::from(scanout.rect.height);
        Some(Scan {
            scanout: number,
            context: ContextId::default(),
            transfer: Transfer::scan(resource, layout.start, layout.stride, row, rows),
            layout,
            flight: None,
        })
    }

    /// Read the next piece straight into the frame, where it is seen at once:
    /// for accesses that are not parted. `None`, and nothing is done, if
    /// there is no piece, or it does not end with a pixel.
    fn scan_read(&mut self, dma: Dma<'_>, scan: &mut Scan) -> Option<Result<(), Fault>> {
        let (iova, length) = self.transfer_piece(&scan.transfer)?;
        let frame = self
            .scanouts
            .get_mut(scan.scanout as usize)?
            .frame_to_fill();
        let (at, format) = (scan.transfer.target(), scan.layout.format);
        let result = frame.fill(at, length as usize, format, |bytes| dma.read(iova, bytes))?;
        if result.is_ok() {
            scan.transfer.advance(u64::from(length));
        }
        Some(result)
    }

    /// Bytes of a piece arrived: they are seen at once.
    fn scan_put(&mut self, scan: &mut Scan, bytes: &[u8]) {
        if let Some(scanout) = self.scanouts.get_mut(scan.scanout as usize) {
            let frame = scanout.frame_to_fill();
            frame.put(scan.transfer.target(), bytes, scan.layout.format);
        }
        scan.transfer.advance(bytes.len() as u64);
    }
}

impl VirtioGpu {
    /// Has a vsync begun, or is one due?
    pub(crate) fn has_vsync_work(&self, now: u64) -> bool {
        self.gpu.vsync.is_busy() || self.next_vsync().is_some_and(|due| due <= now)
    }

    /// One step of a vsync.
    pub(crate) fn advance_vsync(&mut self, dma: Dma<'_>, force: bool) -> Stepped {
        let Some(mut scan) = self.gpu.vsync.scan.take() else {
            self.begin_scan(dma);
            return Stepped::Progress;
        };
        let dma = dma.with_context(scan.context);
        let scenario = dma.env().scenario;
        let parted = scan.flight.is_some()
            || scenario.parts_accesses(false)
            || scenario.has_faults(SiteKind::Access);
        if !parted && let Some(result) = self.gpu.scan_read(dma, &mut scan) {
            self.scanned(dma, scan, result.is_ok());
            return Stepped::Progress;
        }
        let bytes = match scan.flight.take() {
            Some(token) => match dma.land(token, force) {
                Landing::Pending => {
                    scan.flight = Some(token);
                    self.gpu.vsync.scan = Some(scan);
                    return Stepped::Waiting;
                }
                Landing::Landed(bytes) => Some(bytes),
                // Only a reset cancels, and it ends the vsync.
                Landing::Gone => None,
            },
            None => match self.gpu.transfer_piece(&scan.transfer) {
                Some((iova, length)) => match dma.issue_read(iova, length) {
                    Ok(Issued::Done(bytes)) => Some(bytes),
                    Ok(Issued::InFlight(token)) => {
                        scan.flight = Some(token);
                        self.gpu.vsync.scan = Some(scan);
                        return Stepped::Progress;
                    }
                    Err(_) => None,
                },
                // The layout lies in the blob, and the backing holds the blob.
                None => None,
            },
        };
        if let Some(bytes) = &bytes {
            self.gpu.scan_put(&mut scan, bytes);
        }
        self.scanned(dma, scan, bytes.is_some());
        Stepped::Progress
    }

    /// A piece was read, or refused.
    fn scanned(&mut self, dma: Dma<'_>, scan: Scan, done: bool) {
        if !done {
            // What was read stays seen; the rest of the frame is the old one.
            self.told(dma, scan.context, code::ERR_UNSPEC);
        } else if scan.transfer.next().is_some() {
            self.gpu.vsync.scan = Some(scan);
        } else {
            self.tell_flush(dma, scan.scanout);
            self.told(dma, scan.context, code::OK_NODATA);
        }
    }

    /// Begin with the next scanout, of a vsync that is due or under way.
    fn begin_scan(&mut self, dma: Dma<'_>) {
        if self.gpu.vsync.todo == 0 {
            self.gpu.begin_vsync(dma.env().scenario.now());
        }
        let Some(mut scan) = self.gpu.next_scan() else {
            return;
        };
        let number = self.gpu.vsync.last as u16;
        scan.context = self.function.mint(dma, number, scan.scanout as u16);
        let journal = dma.env().scenario.journal();
        learnt(dma, scan.context, NAME);
        let name = journal.name(NAME);
        journal.emit(Event::Command {
            context: scan.context,
            name,
            detail: format!(
                "scanout {}, resource {}",
                scan.scanout, scan.transfer.resource
            ),
            resource: Some(scan.transfer.resource),
        });
        self.gpu.vsync.scan = Some(scan);
    }
}
