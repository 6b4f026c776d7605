//! Root and context tables (VT-d 9.1, 9.3): which device is in which domain.

use super::domain::{DomainId, DomainKind};
use super::queue::Request;
use super::{HalError, State, write_entry};
use crate::mm;
use crate::platform::Platform;
use iommu::spec::tables as spec;
use journal::event::Table;
use memory::{Gpa, RequesterId};

/// Address width of a context entry for tables of four levels, 48 bits.
const FOUR_LEVELS: u64 = 0b010;

impl State {
    /// Put a device into a domain. It may come from the default domain, or
    /// from none.
    ///
    /// Not atomic, as on hardware: while the entry is absent, the device's
    /// accesses fault. Windows keeps the device quiet meanwhile
    /// (Begin-/EndExclusiveAccess).
    ///
    /// # Errors
    /// [`HalError`].
    pub fn attach(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        device: RequesterId,
        domain: DomainId,
    ) -> Result<(), HalError> {
        if !self.domains.contains_key(&domain) {
            return Err(HalError::NoDomain(domain));
        }
        match self.domain_of(device) {
            Some(old) if Some(old) == self.default_domain => {
                self.clear_context(platform, device, old)?;
            }
            Some(_) => return Err(HalError::AlreadyAttached(device)),
            None => {}
        }
        self.write_context(platform, mm, device, domain)?;
        self.devices.entry(device).or_default().domain = Some(domain);
        if self.unit()?.caches_absence() {
            self.invalidate_context(platform, device, domain)?;
        }
        Ok(())
    }

    /// Take a device out of its domain. It is in none then: each access of
    /// it faults.
    ///
    /// # Errors
    /// [`HalError`].
    pub fn detach(
        &mut self,
        platform: &mut dyn Platform,
        device: RequesterId,
    ) -> Result<(), HalError> {
        let domain = self
            .domain_of(device)
            .ok_or(HalError::NotAttached(device))?;
        self.clear_context(platform, device, domain)
    }

    /// Where the context entry of a device lies, if its table exists.
    fn context_entry(&self, device: RequesterId) -> Option<Gpa> {
        let table = self.contexts.get(&device.bus())?;
        Some(Gpa(table.base().0 + 16 * u64::from(device.devfn())))
    }

    pub(super) fn write_context(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        device: RequesterId,
        domain: DomainId,
    ) -> Result<(), HalError> {
        if !self.contexts.contains_key(&device.bus()) {
            let table = mm.reserve_frame(platform)?;
            let bus = device.bus();
            let entry = Gpa(self.unit()?.root.base().0 + 16 * u64::from(bus));
            let low = table.base().0 | spec::ROOT_PRESENT;
            write_entry(platform, entry, low, Table::Root { bus })?;
            self.contexts.insert(bus, table);
        }
        let at = self.context_entry(device).ok_or(HalError::NotInitialised)?;
        let target = self
            .domains
            .get(&domain)
            .ok_or(HalError::NoDomain(domain))?;
        let (kind, table) = match target.kind {
            DomainKind::Passthrough => (spec::TYPE_PASS_THROUGH, 0),
            DomainKind::Translate => (spec::TYPE_TRANSLATE, target.root.base().0),
        };
        let low = table | kind << spec::CONTEXT_TYPE | spec::CONTEXT_PRESENT;
        let high = u64::from(domain.0) << spec::CONTEXT_DOMAIN | FOUR_LEVELS;
        // The half with the present bit last.
        let context = Table::Context { device };
        write_entry(platform, Gpa(at.0 + 8), high, context)?;
        write_entry(platform, at, low, context)?;
        Ok(())
    }

    /// Make the entry absent, in the tables and in every cache.
    fn clear_context(
        &mut self,
        platform: &mut dyn Platform,
        device: RequesterId,
        domain: DomainId,
    ) -> Result<(), HalError> {
        let at = self
            .context_entry(device)
            .ok_or(HalError::NotAttached(device))?;
        let context = Table::Context { device };
        write_entry(platform, at, 0, context)?;
        write_entry(platform, Gpa(at.0 + 8), 0, context)?;
        if let Some(known) = self.devices.get_mut(&device) {
            known.domain = None;
        }
        self.invalidate_context(platform, device, domain)
    }

    /// The context cache first: it is what new IOTLB entries are made from
    /// (VT-d 6.5.2.1).
    fn invalidate_context(
        &mut self,
        platform: &mut dyn Platform,
        device: RequesterId,
        domain: DomainId,
    ) -> Result<(), HalError> {
        let requests = [
            Request::context(domain.0, device),
            Request::domain(domain.0, true),
        ];
        self.submit(platform, &requests)
    }
}
