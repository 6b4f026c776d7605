//! The processor's control region, behind GS.

use super::arena::{Arena, Region};
use super::spec::{irql, kpcr};
use super::{State, field, time};
use crate::{Platform, PlatformError};
use memory::Gva;

impl State {
    /// Lay out what the driver sees of the executive: KPCR and KPRCB at the
    /// start of `region`, the thread that runs `DriverEntry`, the time page.
    /// `region` and the page at [`crate::layout::SHARED_DATA`] are mapped
    /// and zeroed; two pages of the region are the least.
    ///
    /// # Errors
    /// [`PlatformError`] if they are not.
    pub fn init(&mut self, p: &mut dyn Platform, region: Region) -> Result<(), PlatformError> {
        self.arena = Arena::new(region);
        let processor = self
            .arena
            .take(kpcr::SIZE)
            .ok_or(PlatformError::CannotMap {
                address: region.base,
                why: "the executive's region has no room for the KPCR".to_owned(),
            })?;
        self.processor = processor;
        let prcb = field(processor, kpcr::PRCB)?;
        p.write_u64(field(processor, kpcr::SELF)?, processor.0)?;
        p.write_u64(field(processor, kpcr::CURRENT_PRCB)?, prcb.0)?;
        // MajorVersion and MinorVersion, both 1.
        p.write_u32(field(processor, kpcr::VERSION)?, 0x0001_0001)?;
        p.write_u32(field(processor, kpcr::NUMBER)?, 0)?;
        self.set_irql(p, irql::PASSIVE)?;
        time::write_constants(p)?;
        self.refresh_time(p)?;
        self.make_first_thread(p)
    }

    /// The KPCR: what GS points to.
    #[must_use]
    pub fn kpcr(&self) -> Gva {
        self.processor
    }

    /// A field of the KPCR.
    pub(super) fn at_processor(&self, offset: u64) -> Result<Gva, PlatformError> {
        field(self.processor, offset)
    }
}
