//! Findings in words: what happened, whose defect it is, what Windows does.

use crate::finding::{AccessFacts, Blame, Finding, Outcome, Party, Refusal, Stop};
use crate::history::Drain;
use crate::spec::{BUG_CHECK_DMA_VIOLATION, BUS_MASTER_DISABLED, IOMMU_VIOLATION, NOT_MEMORY};
use crate::text::span;
use journal::event::{AllocationKind, Certainty};
use memory::Iova;

/// What a finding's words depend on beyond its own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    UseAfterFree {
        /// The device reaches memory by physical address.
        identity: bool,
        /// A table entry leads to the page still.
        mapped: bool,
    },
    Stale {
        /// When the address was invalidated after its entry had changed.
        invalidated: Option<u64>,
        /// Are all invalidations since known?
        known: bool,
        /// Is the page freed?
        freed: bool,
    },
    FreeInFlight {
        /// When the access was issued.
        issued: u64,
        /// What the invalidations between issue and free did; `None` where
        /// there is nothing to invalidate.
        drain: Option<Drain>,
    },
    MappedAfterFree {
        /// How the allocation was made.
        kind: Option<AllocationKind>,
    },
    /// The IOMMU may have cached the way to a freed page.
    MissingInvalidation,
    /// As the guest told, the memory was given up.
    ClaimedUse,
    /// As the guest told, the memory was freed; it is mapped still.
    ClaimedMapped,
    /// Exclusive access had begun.
    Exclusive,
    /// The address is of the interrupt range.
    InterruptRange,
    /// The address is what stands past the end of a partial MDL.
    Partial {
        /// Pages that were asked for.
        requested: u64,
        /// Pages that were given.
        given: u64,
    },
    /// The address is the physical one of memory of the driver's.
    RawPhysical {
        /// Was it carried out?
        through: bool,
    },
    /// Another allocation has the page by now.
    Reused {
        /// Is it an area of a queue, or a resource's backing?
        queue: bool,
    },
    /// The page was never the driver's, and nothing is isolated.
    IdentityOnly,
    Refused {
        /// A leaf entry is there.
        mapped: bool,
        /// One was there before.
        before: bool,
        /// Read as a physical address, it is a page of the driver's.
        physical: bool,
        /// Fault reason, if it is known yet.
        reason: Option<u8>,
    },
}

fn verb(access: &AccessFacts) -> &'static str {
    if access.write { "write" } else { "read" }
}

/// The area of a queue that an access is in, to follow a sentence.
fn in_area(access: &AccessFacts) -> String {
    access.area.map_or_else(String::new, |area| {
        format!(" in queue {}'s {}", area.queue, area.part.words())
    })
}

fn after_free(finding: &Finding) -> String {
    let freed = finding.allocation.as_ref().and_then(|a| a.freed.as_ref());
    match freed {
        Some(freed) => format!(
            "freed {} earlier",
            span(finding.time.saturating_sub(freed.time))
        ),
        None => "freed earlier".to_owned(),
    }
}

/// What happened, in a sentence.
pub(crate) fn summary(finding: &Finding, access: &AccessFacts, case: &Case) -> String {
    let (verb, length) = (verb(access), access.length);
    match *case {
        Case::UseAfterFree { .. } if access.outcome == Outcome::Refused => format!(
            "{verb} of {length} bytes{} refused: the address led to memory that was {}",
            in_area(access),
            after_free(finding)
        ),
        Case::UseAfterFree { .. } => format!(
            "{verb} of {length} bytes{} went through to memory that was {}",
            in_area(access),
            after_free(finding)
        ),
        Case::Stale { freed, .. } => format!(
            "{verb} of {length} bytes went through by a cached translation that the tables no \
             longer hold{}",
            if freed {
                format!(", to memory that was {}", after_free(finding))
            } else {
                String::new()
            }
        ),
        Case::FreeInFlight { issued, .. } => format!(
            "{verb} of {length} bytes, issued {} earlier, landed in memory that was freed meanwhile",
            span(finding.time.saturating_sub(issued))
        ),
        Case::MappedAfterFree { .. } => {
            "memory was given back while a table entry still led to it".to_owned()
        }
        Case::MissingInvalidation => {
            "memory was given back while the IOMMU could still have its translation cached"
                .to_owned()
        }
        Case::ClaimedUse => {
            let retired = finding.claim.and_then(|claim| claim.retired);
            let since = finding.time.saturating_sub(retired.unwrap_or(finding.time));
            format!(
                "{verb} of {length} bytes went through to memory that, as the guest told, was \
                 given up {} earlier",
                span(since)
            )
        }
        Case::ClaimedMapped => "as the guest told, memory was freed while a mapping of before \
                                still led to it"
            .to_owned(),
        Case::Exclusive => format!(
            "{verb} of {length} bytes of system memory {} during exclusive access",
            if access.outcome == Outcome::Refused {
                "was tried"
            } else {
                "went through"
            }
        ),
        Case::InterruptRange => {
            format!(
                "{verb} of {length} bytes{}{} at an address of the interrupt range",
                in_area(access),
                if access.area.is_some() { "," } else { "" }
            )
        }
        Case::Partial { requested, given } => format!(
            "{verb} of {length} bytes at the address that stands past the end of a partial MDL: \
             {requested} pages were asked for, {given} were given"
        ),
        Case::RawPhysical { through } => format!(
            "{verb} of {length} bytes {} the CPU's physical address of memory that is not mapped \
             for the device",
            if through {
                "went through by"
            } else {
                "refused: the address is"
            }
        ),
        Case::Reused { queue } => format!(
            "{verb} of {length} bytes for a {} whose memory was {} went through to memory that has \
             another owner by now",
            match access.area {
                Some(area) if queue => format!("queue's {}", area.part.words()),
                _ if queue => "queue".to_owned(),
                _ => "resource".to_owned(),
            },
            after_free(finding)
        ),
        Case::IdentityOnly => format!(
            "{verb} of {length} bytes went through to memory that was never the driver's: it is \
             reachable by identity only"
        ),
        Case::Refused {
            reason: Some(BUS_MASTER_DISABLED),
            ..
        } => format!("{verb} of {length} bytes dropped: bus mastering is disabled"),
        Case::Refused {
            reason: Some(NOT_MEMORY),
            ..
        } => format!("{verb} of {length} bytes dropped: the address leads to no memory"),
        Case::Refused {
            reason: Some(1..=3),
            ..
        } => format!("{verb} of {length} bytes refused: the device is in no domain"),
        Case::Refused { mapped: true, .. } => {
            format!("{verb} of {length} bytes refused: the mapping does not allow it")
        }
        Case::Refused { before: true, .. } => format!(
            "{verb} of {length} bytes refused: the address is no longer mapped for the device"
        ),
        Case::Refused { .. } => {
            format!("{verb} of {length} bytes refused: the address was never mapped for the device")
        }
    }
}

/// Whose defect it is: who must mend it first comes first.
pub(crate) fn blame(finding: &Finding, access: &AccessFacts, case: &Case) -> Vec<Blame> {
    match *case {
        Case::UseAfterFree { identity, mapped } => {
            let mut blame = vec![driver(order_of_free(finding, access))];
            if identity {
                return blame;
            }
            if mapped && access.outcome == Outcome::WentThrough {
                blame.insert(
                    0,
                    system("the free left the page mapped for the device".into()),
                );
            }
            blame
        }
        Case::Stale {
            invalidated,
            known,
            freed,
        } => {
            let mut blame = vec![match (invalidated, known) {
                (Some(time), _) => Blame {
                    party: Party::Device,
                    reason: format!(
                        "the address was invalidated at {}, yet the old translation was used",
                        span(time)
                    ),
                },
                (None, true) => system(
                    "the table entry was changed, but the address was never invalidated in the \
                     IOTLB since"
                        .into(),
                ),
                (None, false) => system(
                    "the table entry was changed, and none of the last invalidations covers the \
                     address"
                        .into(),
                ),
            }];
            if freed {
                blame.push(driver(order_of_free(finding, access)));
            }
            blame
        }
        Case::FreeInFlight { drain, .. } => {
            let waited = driver(
                "the memory was freed while the device was at work on a command that uses it"
                    .into(),
            );
            match drain {
                None => vec![waited],
                Some(Drain::NotInvalidated) => vec![
                    system("the free did not invalidate the address before it returned".into()),
                    waited,
                ],
                Some(Drain::No) => vec![
                    system(format!(
                        "the free invalidated the address without draining {}s (D{} = 0)",
                        verb(access),
                        if access.write { 'W' } else { 'R' }
                    )),
                    waited,
                ],
                Some(Drain::Yes) => vec![
                    Blame {
                        party: Party::Device,
                        reason: "an invalidation with drain was completed while the access was \
                                 still in flight"
                            .into(),
                    },
                    waited,
                ],
            }
        }
        Case::MappedAfterFree { kind } => vec![match kind {
            Some(AllocationKind::DxgkMdl | AllocationKind::DxgkContiguous) | None => system(
                "the callback that frees the memory must clear its table entries first".into(),
            ),
            Some(_) => driver(
                "memory from Mm routines is mapped by the driver, which must unmap it before it \
                 frees it"
                    .into(),
            ),
        }],
        Case::MissingInvalidation => vec![system(
            "the table entry was cleared, and no invalidation covered the address before the pages \
             went back"
                .into(),
        )],
        Case::ClaimedUse => vec![driver(
            "as it told, it gave the memory up; the device still had the address".into(),
        )],
        Case::ClaimedMapped => vec![driver(
            "as it told, the memory was freed; what maps it for the device must go first (where \
             the guest invalidates lazily, its operating system leaves it)"
                .into(),
        )],
        Case::Exclusive => vec![driver(
            "DxgkDdiBeginExclusiveAccess returned before the device was quiet, or the driver gave \
             it work before DxgkDdiEndExclusiveAccess"
                .into(),
        )],
        Case::InterruptRange => vec![driver(match access.area {
            Some(area) => format!(
                "it gave queue {} a {} in the interrupt range, which is never memory: a write there \
                 is an interrupt request",
                area.queue,
                area.part.words()
            ),
            None => "the address is in the interrupt range, which is never memory: a write there \
                     is an interrupt request"
                .into(),
        })],
        Case::Partial { .. } => vec![driver(
            "it took the page frame numbers up to the size that it asked for; the MDL's byte count \
             says where they end"
                .into(),
        )],
        Case::RawPhysical { through } => vec![driver(
            if through {
                "the memory came from an Mm or pool routine and was never mapped for the device: \
                 it works only as long as nothing is isolated"
            } else {
                "the memory came from an Mm or pool routine and was never mapped for the device: \
                 with isolation the device knows logical addresses alone"
            }
            .into(),
        )],
        Case::Reused { queue } => vec![driver(
            if queue {
                "the ring was freed while the queue was enabled"
            } else {
                "the memory was freed while the resource was still attached to it"
            }
            .into(),
        )],
        Case::IdentityOnly => vec![driver(
            "the device was given an address that no allocation and no mapping of the driver's \
             stands for; with isolation it would be refused"
                .into(),
        )],
        Case::Refused {
            mapped,
            before,
            physical,
            reason,
        } => vec![driver(
            if reason == Some(BUS_MASTER_DISABLED) {
                "the device was given work while Bus Master Enable was clear"
            } else if reason == Some(NOT_MEMORY) {
                "the device was given an address that is no memory"
            } else if matches!(reason, Some(1..=3)) {
                "the device was at work while it was attached to no domain: it must be quiet then"
            } else if mapped {
                "the memory was mapped with other rights than the command needs"
            } else if before {
                "the memory is the driver's, but was unmapped while a command still used it"
            } else if physical {
                "as a physical address it is memory of the driver's that was never mapped for the \
                 device: was it allocated behind dxgkrnl's back, or is a CPU address used where a \
                 logical one is due?"
            } else {
                "the device was given an address that no mapping was made for"
            }
            .into(),
        )],
    }
}

fn order_of_free(finding: &Finding, access: &AccessFacts) -> String {
    if let Some(area) = access.area {
        return format!(
            "queue {} was still enabled, with its {} in the memory that was freed",
            area.queue,
            area.part.words()
        );
    }
    let freed = finding.allocation.as_ref().and_then(|a| a.freed.as_ref());
    let submitted = access.command.as_ref().and_then(|c| c.submitted.as_ref());
    match (submitted, freed) {
        (Some(submitted), Some(freed)) if submitted.time <= freed.time => format!(
            "the command was submitted {} before the free, which did not wait for the device to \
             be done with it",
            span(freed.time - submitted.time)
        ),
        (Some(submitted), Some(freed)) => format!(
            "the command was submitted {} after the free: the device still had the address",
            span(submitted.time - freed.time)
        ),
        _ => "the device still had the address when the memory was freed".to_owned(),
    }
}

pub(crate) fn driver(reason: String) -> Blame {
    Blame {
        party: Party::Driver,
        reason,
    }
}

fn system(reason: String) -> Blame {
    Blame {
        party: Party::OperatingSystem,
        reason,
    }
}

/// What Windows does about a fault. The code and the meaning of its
/// parameters are in Microsoft's reference of bug checks; that the fourth is
/// the raw fault reason follows from published crash dumps.
pub(crate) fn expected_stop(iova: Iova, refusal: Refusal) -> Stop {
    Stop {
        code: BUG_CHECK_DMA_VIOLATION,
        parameters: [IOMMU_VIOLATION, 0, iova.0, refusal.reason.into()],
        certainty: Certainty::Inferred,
        reason: "an IOMMU fault stops Windows with DRIVER_VERIFIER_DMA_VIOLATION, with or without \
                 Driver Verifier"
            .into(),
        seen: false,
        continued: false,
    }
}
