//! What of the past its future findings depend on, as one number.
//!
//! Exploring cuts a run off where the machine is as it was in another. What
//! the ledger remembers is no part of the machine: whose a backing was when
//! the device was told of it, where a page was allocated and freed. Two runs
//! go on alike only if that is alike too.
//!
//! Counted are facts that decide whether a finding comes, which it is, and
//! which object and stacks it shows. When something happened does not count,
//! only whether it was before or after what it is compared with; nor do facts
//! that only tell more of a finding: a page's history, the invalidations, the
//! calls before it, who is to blame. Stacks go by their frames, for their
//! numbers depend on which was met first.

use crate::{Access, Allocation, Ledger, Route};
use journal::event::StackId;
use std::hash::{Hash, Hasher};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A stack, and what stands for it in a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stack {
    pub(crate) frames: Vec<u64>,
    digest: u64,
}

impl Stack {
    pub(crate) fn new(frames: Vec<u64>) -> Self {
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|frame| frame.to_le_bytes())
            .collect();
        Self {
            digest: xxh3_64(&bytes),
            frames,
        }
    }
}

impl Access {
    /// Everything but when it was.
    fn hash_meant(&self, hasher: &mut impl Hasher) {
        let Self {
            event: _,
            time: _,
            context,
            device,
            iova,
            length,
            write,
        } = *self;
        (context, device, iova, length, write).hash(hasher);
    }
}

impl Route {
    fn hash_taken(&self, hasher: &mut impl Hasher) {
        let Self {
            gpa,
            generation,
            cached,
        } = *self;
        (gpa, generation, cached).hash(hasher);
    }
}

impl Ledger {
    /// A digest of what future findings depend on: the ledgers of two runs
    /// that are equal in it find the same in equal events that follow.
    #[must_use]
    pub fn digest(&self) -> u128 {
        // Whoever adds a field decides here whether it counts.
        let Self {
            terse: _,
            facts,
            event: _,
            time: _,
            names: _,
            stacks,
            passthrough,
            forced,
            unisolated,
            secure,
            exclusive,
            default_device,
            contexts,
            domains,
            pages,
            mappings,
            mirror,
            // They date what happened, and say who is to blame.
            invalidations: _,
            iotlb,
            mdls,
            // A guest under QEMU tells them: such a run is not explored.
            claims: _,
            backings,
            histories: _,
            recycled: _,
            commands,
            // The routine of a breach is told, and tells none apart.
            open: _,
            clues: _,
            allocations,
            displaced,
            partials,
            flights,
            injections: _,
            suspects,
            settled,
            fault,
            // Its fault only explains it.
            unexplained: _,
            // What was found has been told; what is found again goes by the
            // keys.
            findings: _,
            keys,
            members: _,
            nameless,
            quiet,
            refused,
            refusals,
            causes: _,
            // Runs that spend it all are not explored.
            budget: _,
        } = self;
        let mut hasher = Xxh3::new();
        let to = &mut hasher;
        let stack = |id: StackId| self.stack_digest(id);
        (facts.unwatched_pages > 0, facts.table_writes > 0).hash(to);
        (stacks.is_empty(), passthrough, forced, unisolated).hash(to);
        (secure, exclusive, default_device).hash(to);
        (contexts, domains, mirror).hash(to);
        pages.hash_owners(to);
        mappings.hash_leads(*settled, to);
        iotlb.hash(to);
        mdls.hash_known(to, |pfn, at| {
            let owner = pages.get(pfn).last_owner();
            let record = owner.and_then(|id| allocations.get(&id));
            record.is_some_and(|record| at >= record.allocated.0)
        });
        backings.hash_owners(to);
        commands.hash_known(to, |name| names_of(self, name), stack);
        for records in [allocations, displaced] {
            records.len().hash(to);
            for (id, record) in records {
                id.hash(to);
                record.hash_made(to, stack);
            }
        }
        partials.hash(to);
        flights.len().hash(to);
        for (token, flight) in flights {
            (token, flight.owner, flight.freed.is_some()).hash(to);
            flight.access.hash_meant(to);
            flight.route.hash_taken(to);
        }
        suspects.len().hash(to);
        for suspect in suspects {
            (suspect.domain, suspect.changed < *settled).hash(to);
            suspect.access.hash_meant(to);
            suspect.route.hash_taken(to);
        }
        fault
            .map(|(context, device, iova, write, refusal)| {
                (context, device, iova, write, refusal.reason)
            })
            .hash(to);
        let mut found: Vec<_> = keys
            .iter()
            .map(|(key, index)| {
                let made = key.allocated.map(|(at, id)| (stack(at), id));
                let (used, freed) = (key.used.map(stack), key.freed.map(stack));
                (
                    *index,
                    key.kind as u8,
                    used,
                    made,
                    freed,
                    key.address,
                    key.claim,
                )
            })
            .collect();
        found.sort_unstable();
        found.hash(to);
        (nameless, quiet.map(|(_, index)| index)).hash(to);
        (refused, refusals).hash(to);
        hasher.digest128()
    }

    fn stack_digest(&self, id: StackId) -> u64 {
        self.stacks.get(&id.0).map_or(0, |stack| stack.digest)
    }
}

fn names_of(ledger: &Ledger, id: journal::event::NameId) -> &str {
    ledger.names.get(&id.0).map_or("", String::as_str)
}

impl Allocation {
    fn hash_made(&self, hasher: &mut impl Hasher, stack: impl Fn(StackId) -> u64) {
        let Self {
            kind,
            handle,
            address,
            runs,
            requested,
            allocated,
            freed,
            remaining,
        } = self;
        (*kind as u8, handle, address, requested, remaining).hash(hasher);
        for run in runs {
            (run.first, run.count).hash(hasher);
        }
        (runs.len(), stack(allocated.1)).hash(hasher);
        freed.map(|(_, at)| stack(at)).hash(hasher);
    }
}
