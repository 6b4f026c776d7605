//! What RAM holds, as data: images of it, and a tracker that keeps one up to
//! date by what was written, so that taking and putting back an image costs
//! what changed and not what there is.

use crate::address::PAGE_SIZE;
use crate::guest::{GuestMemory, MemoryError};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A page and the digest of its bytes and place.
#[derive(Clone, Debug)]
struct Page {
    bytes: Arc<[u8]>,
    digest: u128,
}

impl Page {
    fn new(index: u64, bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            digest: xxh3_128_with_seed(bytes, index),
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bytes, &other.bytes) || self.bytes == other.bytes
    }
}

/// The pages of a memory that are not zero. Images of one [`Tracker`] share
/// the pages that did not change between them.
#[derive(Clone, Debug)]
pub struct Image {
    size: u64,
    /// By the index of the page in the file.
    pages: BTreeMap<u64, Page>,
    /// Sum of the pages' digests: it does not depend on their order, so that
    /// a page can be taken out and put in.
    digest: u128,
}

impl Image {
    /// Bytes of page contents that the image holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_SIZE
    }

    /// A digest of all contents: XXH3-128 of each page, summed.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// What a page of the file, by its index, adds to [`Image::digest`].
    #[must_use]
    pub fn digest_of(&self, index: u64) -> u128 {
        self.pages.get(&index).map_or(0, |page| page.digest)
    }

    fn put(&mut self, index: u64, page: Option<Page>) {
        let digest = page.as_ref().map_or(0, |page| page.digest);
        let old = match page {
            Some(page) => self.pages.insert(index, page),
            None => self.pages.remove(&index),
        };
        let old = old.map_or(0, |old| old.digest);
        self.digest = self.digest.wrapping_sub(old).wrapping_add(digest);
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        let pages = || self.pages.iter().zip(&other.pages);
        self.size == other.size
            && self.pages.len() == other.pages.len()
            && pages().all(|((at, a), (other, b))| at == other && a.is(b))
    }
}

impl Eq for Image {}

impl Hash for Image {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.size, self.digest).hash(hasher);
    }
}

/// A page that a restore changed.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Index of the page in the file.
    pub index: u64,
    /// What it held; `None` for zeroes.
    pub old: Option<Arc<[u8]>>,
    /// What it holds now.
    pub new: Option<Arc<[u8]>>,
}

/// Keeps an image of one memory.
#[derive(Clone, Debug)]
pub struct Tracker {
    now: Image,
}

impl Tracker {
    /// Look at all of `memory`, and from now on at what is written.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`] never, in a sound memory.
    pub fn new(memory: &GuestMemory) -> Result<Self, MemoryError> {
        // All of it is looked at anyway.
        let _ = memory.take_written();
        Ok(Self {
            now: memory.save()?,
        })
    }

    /// Look at what was written since the last call: by the host, which
    /// `memory` knows, and by a CPU, which `cpu` tells: a bitmap of the pages
    /// of the file, bit 0 of the first word being the first page.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]: a bit beyond the end.
    pub fn update(&mut self, memory: &GuestMemory, cpu: &[u64]) -> Result<(), MemoryError> {
        let mut bytes = vec![0; PAGE_SIZE as usize];
        let host = memory.take_written();
        for (word, both) in host.iter().enumerate() {
            let mut bits = both | cpu.get(word).copied().unwrap_or(0);
            while bits != 0 {
                let index = word as u64 * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                memory.read_file_page(index, &mut bytes)?;
                let same = match self.now.pages.get(&index) {
                    Some(page) => page.bytes[..] == bytes[..],
                    None => is_zero(&bytes),
                };
                if !same {
                    let page = (!is_zero(&bytes)).then(|| Page::new(index, &bytes));
                    self.now.put(index, page);
                }
            }
        }
        Ok(())
    }

    /// The memory at the last update.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.now
    }

    /// Put `image` into the memory, which must be as at the last update.
    /// Returns the pages that changed; KVM knows of none of them.
    ///
    /// # Errors
    /// [`MemoryError::WrongImage`].
    pub fn restore(
        &mut self,
        memory: &GuestMemory,
        image: &Image,
    ) -> Result<Vec<Changed>, MemoryError> {
        if image.size != self.now.size {
            return Err(MemoryError::WrongImage {
                image: image.size,
                memory: self.now.size,
            });
        }
        let mut changed = Vec::new();
        for (&index, page) in &self.now.pages {
            match image.pages.get(&index) {
                Some(wanted) if wanted.is(page) => {}
                wanted => changed.push(Changed {
                    index,
                    old: Some(page.bytes.clone()),
                    new: wanted.map(|page| page.bytes.clone()),
                }),
            }
        }
        for (&index, page) in &image.pages {
            if !self.now.pages.contains_key(&index) {
                changed.push(Changed {
                    index,
                    old: None,
                    new: Some(page.bytes.clone()),
                });
            }
        }
        let zero = [0; PAGE_SIZE as usize];
        for page in &changed {
            memory.write_file_page(page.index, page.new.as_deref().unwrap_or(&zero))?;
        }
        self.now = image.clone();
        Ok(changed)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

impl GuestMemory {
    /// The pages that are not zero.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`] never, in a sound memory.
    pub fn save(&self) -> Result<Image, MemoryError> {
        let mut image = Image {
            size: self.size(),
            pages: BTreeMap::new(),
            digest: 0,
        };
        let mut bytes = vec![0u8; PAGE_SIZE as usize];
        self.for_each_resident(|memory, index| {
            memory.read_file_page(index, &mut bytes)?;
            if !is_zero(&bytes) {
                image.put(index, Some(Page::new(index, &bytes)));
            }
            Ok(())
        })?;
        Ok(image)
    }

    /// Put the bytes of `image` back, and make KVM forget every translation:
    /// the page tables in it may be stricter than today's.
    ///
    /// # Errors
    /// [`MemoryError::WrongImage`], [`MemoryError::Host`].
    pub fn restore(&self, image: &Image) -> Result<(), MemoryError> {
        Tracker::new(self)?.restore(self, image)?;
        self.drop_all_translations()
    }

    /// [`GuestMemory::drop_translations`] of all RAM.
    ///
    /// # Errors
    /// [`MemoryError::Host`].
    pub fn drop_all_translations(&self) -> Result<(), MemoryError> {
        for slot in self.slots() {
            self.drop_translations(slot.base.into(), slot.size / PAGE_SIZE)?;
        }
        Ok(())
    }
}
