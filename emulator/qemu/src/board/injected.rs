//! What a scenario makes of the device in a guest: interrupts that come twice,
//! late or never. What it makes of accesses and commands is `gpu`'s and
//! `iommu`'s affair, and of our virtio-iommu `iommu`'s.

use super::{Board, MESSAGE_ADDRESS};
use iommu::Message;
use scenario::{Fault, Injection, Plan, PlanError, Site, SiteKind, Verify, What};

/// Interrupts that are late at once; a further one comes in time.
const MAX_LATE: usize = 1024;
/// Nanoseconds after which an access in flight is looked at again.
const LOOK: u64 = 200_000;

/// What a scenario has put off.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    /// Interrupts, each with the virtual time when it comes.
    late: Vec<(u64, Message)>,
    /// Does the device wait for an access that is in flight?
    pub waiting: bool,
}

/// Can a scenario be that of a guest, behind our virtio-iommu (`ours`) or an
/// IOMMU of QEMU's? Of a scenario a guest has a name, a seed, faults, and
/// which findings there are to be.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check_plan(plan: &Plan, ours: bool) -> Result<(), PlanError> {
    plan.check_faults(|fault| check(fault, ours))?;
    let known = Plan {
        name: plan.name.clone(),
        seed: plan.seed,
        faults: plan.faults.clone(),
        verify: plan.verify.clone(),
        ..Plan::default()
    };
    if *plan != known {
        return Err(PlanError::Guest);
    }
    let only_findings = |verify: &Verify| {
        verify.status.is_empty() && verify.released.is_none() && verify.frame.is_none()
    };
    match &plan.verify {
        Some(verify) if !only_findings(verify) => Err(PlanError::Verify(
            "in a guest only findings can be verified: leave the rest out".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn check(fault: &Fault, ours: bool) -> Result<(), String> {
    let at = fault.at.name();
    for (name, given) in [
        ("function", fault.function.is_some()),
        ("caller", fault.caller.is_some()),
        ("after", fault.after.is_some()),
    ] {
        if given {
            return Err(format!(
                "{name}: the routines that a guest calls are not seen; leave it out"
            ));
        }
    }
    match fault.at {
        SiteKind::Access | SiteKind::Interrupt | SiteKind::Queue => Ok(()),
        SiteKind::Call | SiteKind::Fill | SiteKind::Evict => Err(format!(
            "at = \"{at}\" is a place of dmasan run: in a guest there are access, interrupt and \
             queue, and with iommu = \"our-virtio\" map, unmap, attach, entry, descriptor and \
             fault-record"
        )),
        _ if !ours => Err(format!(
            "at = \"{at}\": the IOMMU of this machine is QEMU's; use iommu = \"our-virtio\""
        )),
        SiteKind::Entry if fault.outcome == What::ReservedBits => {
            Err("do = \"reserved-bits\": a virtio-iommu has none; use not-present".to_owned())
        }
        SiteKind::FaultRecord if fault.outcome == What::InterruptLost => Err(
            "do = \"interrupt-lost\": reports and answers of a virtio-iommu share an interrupt; \
             use overflow"
                .to_owned(),
        ),
        SiteKind::Descriptor if fault.descriptor.is_some_and(|of| of.name() != "iotlb") => Err(
            "descriptor: an UNMAP of a virtio-iommu is an \"iotlb\", and there is no other"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

impl Board {
    /// The GPU's messages as the scenario has them, and those whose time has
    /// come.
    pub(super) fn spoiled(&mut self, messages: Vec<Message>) -> Vec<Message> {
        let now = self.scenario.now();
        let late = &mut self.delayed.late;
        if late.is_empty() && !self.scenario.has_faults(SiteKind::Interrupt) {
            return messages;
        }
        let mut sent: Vec<Message> = Vec::new();
        late.retain(|&(due, message)| {
            if due <= now {
                sent.push(message);
            }
            due > now
        });
        for message in messages {
            let interrupts =
                message.device.is_some() && message.address == u64::from(MESSAGE_ADDRESS);
            let injection = interrupts
                .then(|| self.scenario.inject(&Site::new(SiteKind::Interrupt)))
                .flatten();
            let room = late.len() < MAX_LATE;
            let due = |injection: Injection| now.saturating_add(injection.ns);
            match injection {
                Some(Injection {
                    outcome: What::Lost,
                    ..
                }) => continue,
                Some(i) if i.outcome == What::Late && room => {
                    late.push((due(i), message));
                    continue;
                }
                Some(i) if i.outcome == What::Spurious && room => late.push((due(i), message)),
                _ => {}
            }
            sent.push(message);
        }
        sent
    }

    /// Nanoseconds until something that was put off is due.
    pub(super) fn delayed_for(&self) -> Option<u64> {
        let now = self.scenario.now();
        let late = self.delayed.late.iter();
        let due = late.map(|&(due, _)| due.saturating_sub(now)).min();
        let look = self.delayed.waiting.then_some(LOOK);
        due.into_iter().chain(look).min()
    }
}
