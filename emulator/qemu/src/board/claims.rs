//! What the guest tells of its memory: the region that it writes to, and what
//! of it reaches the journal.
//!
//! Nothing of it is believed. It is bounded here, and what it may mean is the
//! ledger's to say.

use crate::spec::guest::{self as spec, op, result};
use iommu::Dma;
use journal::event::{Claim, ClaimStep, Event, PageRun};
use memory::{Iova, PAGE_SHIFT, PAGE_SIZE, Pfn};
use std::collections::BTreeMap;

/// Memory that is live at a time, and entries of all of it: no more than the
/// ledger keeps.
const MAX_LIVE: usize = 1 << 12;
const MAX_RUNS: usize = 1 << 16;
/// Pages of one doorbell whose device addresses are translated.
const MAX_TRANSLATED: u64 = 1 << 12;
/// What may be told in a second, and what of that may be saved up. Each
/// doorbell costs one, and one more for every [`RUNS`] runs of pages.
const RATE: u64 = 10_000;
const RUNS: u64 = 16;
const SECOND: u64 = 1_000_000_000;
const NAMES: usize = (spec::NAMES.end - spec::NAMES.start) as usize;
const WINDOW: usize = (spec::WINDOW.end - spec::WINDOW.start) as usize;

/// The region. Plain data.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    /// Cookie and tag, as written.
    names: [u8; NAMES],
    window: Vec<u8>,
    /// Runs of what is live, by cookie.
    live: BTreeMap<u64, usize>,
    runs: usize,
    taken: u32,
    refused: u32,
    result: u32,
    /// What may be told still, in parts of a second, and when that was.
    credit: u64,
    at: u64,
    /// Doorbells that came too fast.
    fast: u64,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            names: [0; NAMES],
            window: vec![0; WINDOW],
            live: BTreeMap::new(),
            runs: 0,
            taken: 0,
            refused: 0,
            result: result::TAKEN,
            credit: SECOND,
            at: 0,
            fast: 0,
        }
    }
}

impl Claims {
    /// Read 1 to 8 bytes; what is not there reads as zero.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        (0..u64::from(size.min(8))).fold(0, |value, i| {
            value | u64::from(self.byte(offset.saturating_add(i))) << (8 * i)
        })
    }

    fn byte(&self, offset: u64) -> u8 {
        let of = |bytes: &[u8], start: u64| {
            let at = usize::try_from(offset - start).ok();
            at.and_then(|at| bytes.get(at)).copied().unwrap_or(0)
        };
        if spec::NAMES.contains(&offset) {
            return of(&self.names, spec::NAMES.start);
        }
        if spec::WINDOW.contains(&offset) {
            return of(&self.window, spec::WINDOW.start);
        }
        let value = match offset & !3 {
            spec::REG_MAGIC => spec::MAGIC,
            spec::REG_VERSION => spec::VERSION.into(),
            spec::REG_ENTRIES => spec::ENTRIES,
            spec::REG_TAKEN => self.taken,
            spec::REG_REFUSED => self.refused,
            spec::REG_RESULT => self.result,
            _ => 0,
        };
        of(&value.to_le_bytes(), offset & !3)
    }

    /// Write 1 to 8 bytes. The doorbell is one write of 4.
    pub fn write(&mut self, dma: Dma<'_>, offset: u64, size: u8, value: u64) {
        if (offset, size) == (spec::REG_DOORBELL, 4) {
            self.doorbell(dma, value as u32);
            return;
        }
        for (at, byte) in (offset..).zip(value.to_le_bytes()).take(size.into()) {
            let place = if spec::NAMES.contains(&at) {
                self.names.get_mut((at - spec::NAMES.start) as usize)
            } else if spec::WINDOW.contains(&at) {
                self.window.get_mut((at - spec::WINDOW.start) as usize)
            } else {
                None
            };
            if let Some(place) = place {
                *place = byte;
            }
        }
    }

    fn doorbell(&mut self, dma: Dma<'_>, value: u32) {
        self.result = match self.take(dma, value) {
            Ok(claim) => {
                self.taken = self.taken.wrapping_add(1);
                dma.env().journal().emit(Event::Claim(claim));
                result::TAKEN
            }
            Err(why) => {
                self.refused = self.refused.wrapping_add(1);
                why
            }
        };
    }

    fn take(&mut self, dma: Dma<'_>, value: u32) -> Result<Claim, u32> {
        self.pay(dma, 1)?;
        let cookie = self.read(spec::REG_COOKIE, 8);
        let live = self.live.get(&cookie).copied();
        let step = match value & 0xff {
            op::ALLOCATE => ClaimStep::Allocated,
            op::EXTEND => ClaimStep::Extended,
            op::RETIRE => ClaimStep::Retired,
            op::FREE => ClaimStep::Freed,
            op::FORGET => ClaimStep::Forgotten,
            _ => return Err(result::NO_OPERATION),
        };
        let names_pages = matches!(step, ClaimStep::Allocated | ClaimStep::Extended);
        let needs_cookie = !matches!(step, ClaimStep::Allocated | ClaimStep::Forgotten);
        if needs_cookie && live.is_none() {
            return Err(result::NO_COOKIE);
        }
        let pages = if names_pages {
            self.pages(dma, value)?
        } else {
            Vec::new()
        };
        self.pay(dma, pages.len() as u64 / RUNS)?;
        match step {
            ClaimStep::Allocated | ClaimStep::Extended => {
                let had = live.unwrap_or(0);
                let kept = if needs_cookie { had } else { 0 };
                let runs = self.runs - had + kept + pages.len();
                let room = live.is_some() || self.live.len() < MAX_LIVE;
                if !room || runs > MAX_RUNS {
                    return Err(result::NO_ROOM);
                }
                self.runs = runs;
                self.live.insert(cookie, kept + pages.len());
            }
            ClaimStep::Retired => {}
            ClaimStep::Freed => {
                self.runs -= self.live.remove(&cookie).unwrap_or(0);
            }
            ClaimStep::Forgotten => {
                self.live.clear();
                self.runs = 0;
            }
        }
        Ok(Claim {
            device: dma.device(),
            cookie,
            tag: self.read(spec::REG_TAG, 4) as u32,
            step,
            pages,
        })
    }

    /// The list in the window, as frames of guest memory.
    fn pages(&self, dma: Dma<'_>, value: u32) -> Result<Vec<PageRun>, u32> {
        let count = (value >> 16) as usize;
        if count == 0 || count > spec::ENTRIES as usize {
            return Err(result::BAD_LIST);
        }
        let entries = self.window.chunks_exact(8).take(count).map(|bytes| {
            let entry = bytes.iter().rev();
            let entry = entry.fold(0, |value, &byte| value << 8 | u64::from(byte));
            let low = entry & (PAGE_SIZE - 1);
            (entry - low, low + 1)
        });
        let mut runs = Vec::new();
        if value & spec::DEVICE_ADDRESSES == 0 {
            let slots = dma.env().memory.slots();
            for (address, pages) in entries {
                let inside = slots.iter().any(|slot| {
                    let offset = address.checked_sub(slot.base.0);
                    let end = offset.and_then(|offset| offset.checked_add(pages * PAGE_SIZE));
                    end.is_some_and(|end| end <= slot.size)
                });
                if !inside {
                    return Err(result::BAD_LIST);
                }
                push(&mut runs, address >> PAGE_SHIFT, pages);
            }
            return Ok(runs);
        }
        let mut left = MAX_TRANSLATED;
        for (address, pages) in entries {
            left = left.checked_sub(pages).ok_or(result::BAD_LIST)?;
            for page in 0..pages {
                let at = address.checked_add(page * PAGE_SIZE).map(Iova);
                let found = at.and_then(|at| {
                    [false, true]
                        .into_iter()
                        .find_map(|write| dma.peek_address(at, write))
                });
                push(&mut runs, found.ok_or(result::BAD_LIST)?.page(), 1);
            }
        }
        Ok(runs)
    }

    /// Pay for something, by the guest's time.
    fn pay(&mut self, dma: Dma<'_>, cost: u64) -> Result<(), u32> {
        let now = dma.env().scenario.now();
        let passed = now.saturating_sub(self.at);
        self.at = now;
        self.credit = self.credit.saturating_add(passed).min(SECOND);
        match self.credit.checked_sub(cost.saturating_mul(SECOND / RATE)) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => {
                self.fast += 1;
                // Seldom enough to be no flood itself.
                if self.fast.is_power_of_two() {
                    dma.env().journal().emit(Event::Note {
                        text: format!(
                            "the guest tells of its memory more than {RATE} times a second: {} \
                             times it was not listened to",
                            self.fast
                        ),
                    });
                }
                Err(result::TOO_FAST)
            }
        }
    }

    /// The machine was reset: whoever told of memory is gone.
    pub fn reset(&mut self, dma: Dma<'_>) {
        if self.taken != 0 {
            dma.env().journal().emit(Event::Claim(Claim {
                device: dma.device(),
                cookie: 0,
                tag: 0,
                step: ClaimStep::Forgotten,
                pages: Vec::new(),
            }));
        }
        *self = Self {
            credit: self.credit,
            at: self.at,
            fast: self.fast,
            ..Self::default()
        };
    }
}

/// Append pages, to the last run where they follow it.
fn push(runs: &mut Vec<PageRun>, first: u64, count: u64) {
    if let Some(last) = runs.last_mut()
        && last.first.0 + last.count == first
    {
        last.count += count;
        return;
    }
    runs.push(PageRun {
        first: Pfn(first),
        count,
    });
}
