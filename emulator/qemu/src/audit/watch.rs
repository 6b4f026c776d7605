//! How long memory stays in reach after the guest's driver gave it up: the
//! time from where that can be seen in guest memory to the unmap.
//!
//! Behind VT-d it is seen as an entry of the tables that is cleared while
//! QEMU's mapping stands; behind a virtio-iommu, QEMU's or ours, as an UNMAP
//! request that lies in the queue while nobody was told to look at it. Both are looked for
//! again and again, so a time is known to within two looks: the least that it
//! can have been is what is reported, with the distance between looks beside
//! it. What comes and goes between two looks is counted as not seen.

use super::pieces::{Piece, within, without};
use super::tables::{self, Walked};
use super::{Iommu, Place, pieces_of};
use crate::board::RequestQueue;
use crate::handle::{Handle, HandleError};
use crate::qmp;
use memory::{Gpa, GuestMemory, PAGE_SHIFT};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_micros(300);
/// Pages watched at once.
const MAX_PAGES: usize = 1 << 18;
/// Upper ends of the histogram's classes, microseconds; one more class holds
/// what is longer.
const CLASSES: [u64; 9] = [
    100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000,
];
/// Bits of a descriptor's flags (virtio 1.2 §2.7.5).
const NEXT_INDIRECT: u16 = 1 << 2;
/// An UNMAP request (virtio 1.2 §5.13.6.6), and its bytes.
const UNMAP: u8 = 4;
const UNMAP_BYTES: usize = 24;
const NOT_SET_UP: &str = "the guest has not set up its virtio-iommu";

/// What was seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Watched {
    /// Why nothing could be.
    pub why_not: Option<String>,
    /// What was looked at.
    pub by: String,
    /// How long it was watched, milliseconds, and how often looked.
    pub milliseconds: u64,
    /// See `milliseconds`.
    pub looks: u64,
    /// Pages that were unmapped.
    pub unmapped: u64,
    /// Of them: pages that were seen given up while they were in reach.
    pub seen: u64,
    /// The least that these can have stayed so, microseconds: the median, and
    /// the longest.
    pub median: u64,
    /// See `median`.
    pub longest: u64,
    /// The longest time between two looks, microseconds.
    pub blind: u64,
    /// Upper end of each class, microseconds, and its pages.
    pub histogram: Vec<(u64, u64)>,
}

/// Where it can be seen that a page was given up.
enum Sight {
    Tables(Gpa),
    Queue(Rings),
}

/// Watch a running machine.
///
/// # Errors
/// [`HandleError`].
pub fn watch(handle: &Handle, place: &Place, time: Duration) -> Result<Watched, HandleError> {
    let mut watched = Watched::default();
    let sight = match place.iommu {
        Iommu::Intel => tables::root(&place.monitor).map(Sight::Tables),
        Iommu::Virtio => rings(&place.monitor).map(Sight::Queue),
        Iommu::None => Err("there is no IOMMU".to_owned()),
        Iommu::OurVirtio => handle
            .request_queue()?
            .map(|queue| Sight::Queue(queue.into()))
            .ok_or_else(|| NOT_SET_UP.to_owned()),
    };
    let sight = match sight {
        Ok(sight) => sight,
        Err(why) => {
            watched.why_not = Some(why);
            return Ok(watched);
        }
    };
    watched.by = match sight {
        Sight::Tables(_) => "entries cleared in the guest's tables",
        Sight::Queue(_) => "UNMAP requests in the virtio-iommu's queue",
    }
    .to_owned();
    let unmaps = handle.unmaps()?;
    // Page given up, and when that was seen.
    let mut given_up: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut ages = Vec::new();
    let begun = Instant::now();
    let mut last = begun;
    let mut before = pieces_of(&handle.look()?);
    while begun.elapsed() < time {
        let now = Instant::now();
        let look = handle.look()?;
        let told = pieces_of(&look);
        let gone = match &sight {
            Sight::Tables(root) => {
                let (root, device) = (*root, look.device);
                let walked = handle.see(move |memory| tables::walk(memory, root, device))?;
                match walked {
                    Walked::Mapped(found, true) => without(&within(&told, &before), &found),
                    _ => Vec::new(),
                }
            }
            Sight::Queue(rings) => {
                let rings = *rings;
                within(&handle.see(move |memory| rings.unmaps(memory))?, &told)
            }
        };
        let seen = Instant::now();
        for page in gone.iter().flat_map(page_numbers) {
            if given_up.len() < MAX_PAGES {
                given_up.entry(page).or_insert(seen);
            }
        }
        while let Ok(unmapped) = unmaps.try_recv() {
            let piece = Piece {
                iova: unmapped.address,
                length: unmapped.size,
                target: None,
                read: true,
                write: true,
            };
            watched.unmapped += super::pages(&within(&before, &[piece]));
            let pages: Vec<u64> = given_up
                .range(page_range(&piece))
                .map(|(&page, _)| page)
                .collect();
            for page in pages {
                if let Some(seen) = given_up.remove(&page) {
                    let age = unmapped.at.saturating_duration_since(seen);
                    // Seen by a look that was slower than the unmap itself.
                    ages.push(age.as_micros() as u64);
                }
            }
        }
        watched.looks += 1;
        watched.blind = watched
            .blind
            .max(now.duration_since(last).as_micros() as u64);
        last = now;
        before = told;
        std::thread::sleep(PAUSE);
    }
    watched.milliseconds = begun.elapsed().as_millis() as u64;
    sum_up(&mut watched, ages);
    // For the report of the run.
    handle.note(watched.in_short())?;
    Ok(watched)
}

fn page_range(piece: &Piece) -> std::ops::Range<u64> {
    piece.iova >> PAGE_SHIFT..piece.iova.saturating_add(piece.length) >> PAGE_SHIFT
}

fn page_numbers(piece: &Piece) -> impl Iterator<Item = u64> + use<> {
    page_range(piece).take(MAX_PAGES)
}

fn sum_up(watched: &mut Watched, mut ages: Vec<u64>) {
    ages.sort_unstable();
    watched.seen = ages.len() as u64;
    watched.median = ages.get(ages.len() / 2).copied().unwrap_or(0);
    watched.longest = ages.last().copied().unwrap_or(0);
    let mut left = ages.into_iter().peekable();
    for class in CLASSES.into_iter().chain([u64::MAX]) {
        let mut count = 0;
        while left.next_if(|&age| age <= class).is_some() {
            count += 1;
        }
        watched.histogram.push((class, count));
    }
}

/// The request queue of a virtio-iommu.
#[derive(Clone, Copy)]
struct Rings {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl From<RequestQueue> for Rings {
    fn from(queue: RequestQueue) -> Self {
        Self {
            size: queue.size,
            descriptors: queue.descriptors,
            available: queue.available,
            used: queue.used,
        }
    }
}

/// That of QEMU's.
fn rings(monitor: &Path) -> Result<Rings, String> {
    let failed = |error: std::io::Error| format!("QEMU does not say where its queue is: {error}");
    let all = qmp::ask(monitor, &json!({ "execute": "x-query-virtio" })).map_err(failed)?;
    let found = all
        .as_array()
        .into_iter()
        .flatten()
        .find(|device| device.get("name").and_then(Value::as_str) == Some("virtio-iommu"));
    let path = found
        .and_then(|device| device.get("path"))
        .ok_or("QEMU has no virtio-iommu")?;
    let command = json!({
        "execute": "x-query-virtio-queue-status",
        "arguments": { "path": path, "queue": 0 },
    });
    let status = qmp::ask(monitor, &command).map_err(failed)?;
    let number = |name: &str| {
        let value = status.get(name).and_then(Value::as_u64);
        value.ok_or_else(|| format!("QEMU does not say the queue's {name}"))
    };
    let rings = Rings {
        size: number("vring-num")?.try_into().unwrap_or(0),
        descriptors: number("vring-desc")?,
        available: number("vring-avail")?,
        used: number("vring-used")?,
    };
    if rings.size == 0 || rings.available == 0 {
        return Err(NOT_SET_UP.to_owned());
    }
    Ok(rings)
}

impl Rings {
    /// Ranges of the UNMAP requests that lie in the queue, ascending.
    fn unmaps(&self, memory: &GuestMemory) -> Vec<Piece> {
        let mut all = self.waiting(memory).unwrap_or_default();
        all.sort_unstable_by_key(|piece| piece.iova);
        // Overlaps would be a guest's nonsense.
        let mut end = 0;
        all.retain(|piece| {
            let keep = piece.iova >= end;
            end = end.max(piece.end());
            keep
        });
        all
    }

    fn waiting(&self, memory: &GuestMemory) -> Option<Vec<Piece>> {
        let half = |at: u64| {
            let mut bytes = [0; 2];
            memory.read(Gpa(at), &mut bytes).ok()?;
            Some(u16::from_le_bytes(bytes))
        };
        let available = half(self.available + 2)?;
        let used = half(self.used + 2)?;
        let waiting = available.wrapping_sub(used).min(self.size);
        let mut found = Vec::new();
        for ahead in 0..waiting {
            let slot = used.wrapping_add(ahead) % self.size;
            let head = half(self.available + 4 + 2 * u64::from(slot))?;
            let Some((address, _)) = self.first(memory, head) else {
                continue;
            };
            let mut request = [0; UNMAP_BYTES];
            if memory.read(Gpa(address), &mut request).is_err() {
                continue;
            }
            let [kind, _, _, _, _, _, _, _, range @ ..] = request;
            let (first, last) = range.split_at(8);
            let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
            if kind == UNMAP
                && let (Some(first), Some(last)) = (word(first), word(last))
                && last >= first
            {
                found.push(Piece {
                    iova: first,
                    length: (last - first).saturating_add(1),
                    target: None,
                    read: true,
                    write: true,
                });
            }
        }
        Some(found)
    }

    /// The first descriptor of a chain, in an indirect table if it has one.
    fn first(&self, memory: &GuestMemory, head: u16) -> Option<(u64, u32)> {
        if head >= self.size {
            return None;
        }
        let mut at = self.descriptors + 16 * u64::from(head);
        for _ in 0..2 {
            let address = memory.read_u64(Gpa(at)).ok()?;
            let length = memory.read_u32(Gpa(at + 8)).ok()?;
            let flags = memory.read_u32(Gpa(at + 12)).ok()? as u16;
            if flags & NEXT_INDIRECT == 0 {
                return Some((address, length));
            }
            at = address;
        }
        None
    }
}

impl Watched {
    /// The same in a sentence.
    fn in_short(&self) -> String {
        format!(
            "{} ms watched by {}: {} pages were unmapped, {} of them were seen given up while \
             still in reach, for at least {} us (median), {} us (longest)",
            self.milliseconds, self.by, self.unmapped, self.seen, self.median, self.longest
        )
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(why) = &self.why_not {
            return writeln!(f, "Nothing could be watched: {why}.");
        }
        writeln!(
            f,
            "{} ms watched by {}, {} looks, at most {} us apart.",
            self.milliseconds, self.by, self.looks, self.blind
        )?;
        writeln!(
            f,
            "{} pages were unmapped; {} of them were seen given up while still in reach,\n\
             for at least {} us (median), {} us (longest).",
            self.unmapped, self.seen, self.median, self.longest
        )?;
        let most = self.histogram.iter().map(|&(_, n)| n).max().unwrap_or(0);
        for &(class, count) in &self.histogram {
            let label = match class {
                u64::MAX => "longer".to_owned(),
                class => format!("to {class} us"),
            };
            let bar = "#".repeat((count * 40).div_ceil(most.max(1)) as usize);
            writeln!(f, "  {label:>13} {count:>7} {bar}")?;
        }
        Ok(())
    }
}
