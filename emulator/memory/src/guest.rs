//! Guest RAM.

use crate::address::{Gpa, PAGE_SIZE, Pfn};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// RAM below 4 GiB ends here, as on a q35 machine: the rest of the first
/// 4 GiB is MMIO, interrupt and firmware space.
pub const LOW_LIMIT: u64 = 3 << 30;
/// RAM that does not fit below [`LOW_LIMIT`] goes on here.
pub const HIGH_BASE: u64 = 4 << 30;

/// What can go wrong with guest memory.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// No RAM, or not all of it, at these addresses.
    #[error("no guest memory at {address} for {length} bytes")]
    OutOfRange {
        /// First byte asked for.
        address: Gpa,
        /// Bytes asked for.
        length: u64,
    },
    /// The size is zero or no multiple of a page.
    #[error("guest memory of {0} bytes: give a multiple of 4096, at least one page")]
    BadSize(u64),
    /// The host gave no memory.
    #[error("cannot get {size} bytes of guest memory from the host: {error}; give less memory")]
    Host {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        error: io::Error,
    },
    /// Memory of a peer's that the peer could cut short under us.
    #[error(
        "the memory file can be shrunk by its owner, and our access would then be fatal: \
         give QEMU memory-backend-memfd with seal=on"
    )]
    NotSealed,
    /// An image of another machine.
    #[error("a memory image of {image} bytes does not fit guest memory of {memory} bytes")]
    WrongImage {
        /// Size of the imaged memory, bytes.
        image: u64,
        /// Size of this memory, bytes.
        memory: u64,
    },
}

/// One contiguous piece of guest-physical RAM, for a KVM memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// First guest-physical address.
    pub base: Gpa,
    /// Bytes.
    pub size: u64,
    /// Where it starts in the memfd.
    pub file_offset: u64,
}

/// Guest RAM: a shared memfd, mapped once.
///
/// Shared, because KVM, QEMU and a discarded translation
/// ([`GuestMemory::drop_translations`]) all need the bytes to outlive a
/// mapping.
#[derive(Debug)]
pub struct GuestMemory {
    /// The whole file, low RAM first.
    region: MmapRegion<()>,
    /// RAM below [`LOW_LIMIT`], bytes.
    low: u64,
    /// All RAM, bytes.
    size: u64,
    /// A bit for each page of the file that the host wrote since the last
    /// [`GuestMemory::take_written`]. Of whoever else maps the file it knows
    /// nothing.
    written: Vec<AtomicU64>,
}

impl GuestMemory {
    /// `size` bytes of zeroed RAM; what exceeds [`LOW_LIMIT`] lies at
    /// [`HIGH_BASE`].
    ///
    /// # Errors
    /// [`MemoryError::BadSize`], [`MemoryError::Host`].
    pub fn new(size: u64) -> Result<Self, MemoryError> {
        let host = |error| MemoryError::Host { size, error };
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) || size > i64::MAX as u64 {
            return Err(MemoryError::BadSize(size));
        }
        // SAFETY: the name is a NUL-terminated literal, and the descriptor
        // that comes back, once checked, is ours alone.
        let fd = unsafe {
            let fd = libc::memfd_create(c"dmasan-guest".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(host(io::Error::last_os_error()));
            }
            OwnedFd::from_raw_fd(fd)
        };
        let file = File::from(fd);
        file.set_len(size).map_err(host)?;
        Self::over(file, size, size.min(LOW_LIMIT))
    }

    /// RAM that a peer made: the whole of its memfd, mapped shared. `low`
    /// bytes of it lie below 4 GiB, the rest from [`HIGH_BASE`] on.
    ///
    /// # Errors
    /// [`MemoryError::NotSealed`], [`MemoryError::BadSize`],
    /// [`MemoryError::Host`].
    pub fn from_file(file: File, low: u64) -> Result<Self, MemoryError> {
        let host = |error| MemoryError::Host { size: 0, error };
        let size = file.metadata().map_err(host)?.len();
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) || size > i64::MAX as u64 {
            return Err(MemoryError::BadSize(size));
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: F_GET_SEALS takes no argument and changes nothing.
        let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
        // A file that is no memfd has no seals: the call then fails.
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(MemoryError::NotSealed);
        }
        Self::over(file, size, low.min(size).min(HIGH_BASE))
    }

    /// Map `size` bytes of a file that is at least as long and stays so.
    fn over(file: File, size: u64, low: u64) -> Result<Self, MemoryError> {
        let region =
            MmapRegion::from_file(FileOffset::new(file, 0), size as usize).map_err(|e| {
                MemoryError::Host {
                    size,
                    error: io::Error::other(e.to_string()),
                }
            })?;
        Ok(Self {
            region,
            low,
            size,
            written: (0..(size / PAGE_SIZE).div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
        })
    }

    /// The piece of guest-physical RAM that holds the byte at `file_offset`:
    /// its address, and how many bytes go on from there without a gap.
    #[must_use]
    pub fn address_of(&self, file_offset: u64) -> Option<(Gpa, u64)> {
        if file_offset < self.low {
            return Some((Gpa(file_offset), self.low - file_offset));
        }
        let left = self.size.checked_sub(file_offset).filter(|&n| n != 0)?;
        Some((Gpa(HIGH_BASE + (file_offset - self.low)), left))
    }

    /// All RAM, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One past the highest page frame of RAM.
    #[must_use]
    pub fn end(&self) -> Pfn {
        let end = match self.size - self.low {
            0 => self.low,
            high => HIGH_BASE + high,
        };
        Pfn(end / PAGE_SIZE)
    }

    /// The pieces of guest-physical space that RAM fills.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = vec![Slot {
            base: Gpa(0),
            size: self.low,
            file_offset: 0,
        }];
        if self.size > self.low {
            slots.push(Slot {
                base: Gpa(HIGH_BASE),
                size: self.size - self.low,
                file_offset: self.low,
            });
        }
        slots
    }

    /// The memfd, to share with KVM's user or a vfio-user peer.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.region.file_offset().map(|f| f.file().as_fd())
    }

    /// Host address of the byte at `file_offset`, for KVM's memory slots and
    /// nothing else.
    #[must_use]
    pub fn host_address(&self, file_offset: u64) -> Option<u64> {
        (file_offset < self.size).then(|| self.region.as_ptr() as u64 + file_offset)
    }

    /// Where `length` bytes at `address` lie in the file, if all are RAM and
    /// in one piece.
    #[inline]
    fn offset(&self, address: Gpa, length: u64) -> Result<usize, MemoryError> {
        let start = address.0;
        let piece = if start < self.low {
            Some((start, self.low))
        } else if start >= HIGH_BASE {
            Some((start - HIGH_BASE + self.low, self.size))
        } else {
            None
        };
        match piece {
            Some((offset, end)) if offset <= end && length <= end - offset => Ok(offset as usize),
            _ => Err(MemoryError::OutOfRange { address, length }),
        }
    }

    /// Which page of the file an address is in.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]: no RAM.
    pub fn page_of_file(&self, address: Gpa) -> Result<u64, MemoryError> {
        Ok(self.offset(address, 1)? as u64 / PAGE_SIZE)
    }

    /// A volatile view of RAM to read through, for vm-memory's traits. It
    /// borrows the memory, so it cannot be kept by device state.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`].
    #[inline]
    pub fn slice(&self, address: Gpa, length: usize) -> Result<VolatileSlice<'_, ()>, MemoryError> {
        let offset = self.offset(address, length as u64)?;
        self.region
            .get_slice(offset, length)
            .map_err(|_| MemoryError::OutOfRange {
                address,
                length: length as u64,
            })
    }

    /// The same, to write through.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`].
    #[inline]
    pub fn slice_mut(
        &self,
        address: Gpa,
        length: usize,
    ) -> Result<VolatileSlice<'_, ()>, MemoryError> {
        let slice = self.slice(address, length)?;
        if length != 0 {
            let offset = self.offset(address, length as u64)? as u64;
            let last = (offset + length as u64 - 1) / PAGE_SIZE;
            for page in offset / PAGE_SIZE..=last {
                self.mark(page);
            }
        }
        Ok(slice)
    }

    #[inline]
    fn mark(&self, page: u64) {
        if let Some(word) = self.written.get((page / 64) as usize) {
            let bit = 1 << (page % 64);
            // Most writes go where others went before: a read suffices.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Pages of the file that were written through this memory since the last
    /// call, as words of a bitmap.
    #[must_use]
    pub fn take_written(&self) -> Vec<u64> {
        self.written
            .iter()
            .map(|word| match word.load(Ordering::Relaxed) {
                0 => 0,
                _ => word.swap(0, Ordering::Relaxed),
            })
            .collect()
    }

    /// Is every byte RAM?
    #[must_use]
    pub fn contains(&self, address: Gpa, length: u64) -> bool {
        self.offset(address, length).is_ok()
    }

    /// Copy out.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; `bytes` is then untouched.
    #[inline]
    pub fn read(&self, address: Gpa, bytes: &mut [u8]) -> Result<(), MemoryError> {
        self.slice(address, bytes.len())?.copy_to(bytes);
        Ok(())
    }

    /// Copy in.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; nothing is then written.
    #[inline]
    pub fn write(&self, address: Gpa, bytes: &[u8]) -> Result<(), MemoryError> {
        self.slice_mut(address, bytes.len())?.copy_from(bytes);
        Ok(())
    }

    /// Set `length` bytes to `byte`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`]; nothing is then written.
    pub fn fill(&self, address: Gpa, length: u64, byte: u8) -> Result<(), MemoryError> {
        self.offset(address, length)?;
        let page = [byte; PAGE_SIZE as usize];
        let mut done = 0;
        while done < length {
            let step = (length - done).min(PAGE_SIZE);
            self.write(Gpa(address.0 + done), &page[..step as usize])?;
            done += step;
        }
        Ok(())
    }

    /// A little-endian 32-bit value; atomic if aligned.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`].
    pub fn read_u32(&self, address: Gpa) -> Result<u32, MemoryError> {
        let slice = self.slice(address, 4)?;
        match slice.load::<u32>(0, Ordering::Acquire) {
            Ok(value) => Ok(u32::from_le(value)),
            Err(_) => {
                let mut bytes = [0; 4];
                slice.copy_to(&mut bytes[..]);
                Ok(u32::from_le_bytes(bytes))
            }
        }
    }

    /// A little-endian 64-bit value; atomic if aligned, as a table walk must
    /// see it.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`].
    #[inline]
    pub fn read_u64(&self, address: Gpa) -> Result<u64, MemoryError> {
        let slice = self.slice(address, 8)?;
        match slice.load::<u64>(0, Ordering::Acquire) {
            Ok(value) => Ok(u64::from_le(value)),
            Err(_) => {
                let mut bytes = [0; 8];
                slice.copy_to(&mut bytes[..]);
                Ok(u64::from_le_bytes(bytes))
            }
        }
    }

    /// Write a little-endian 32-bit value; atomic if aligned.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`].
    pub fn write_u32(&self, address: Gpa, value: u32) -> Result<(), MemoryError> {
        let slice = self.slice_mut(address, 4)?;
        if slice.store(value.to_le(), 0, Ordering::Release).is_err() {
            slice.copy_from(&value.to_le_bytes()[..]);
        }
        Ok(())
    }

    /// Write a little-endian 64-bit value; atomic if aligned.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`].
    pub fn write_u64(&self, address: Gpa, value: u64) -> Result<(), MemoryError> {
        let slice = self.slice_mut(address, 8)?;
        if slice.store(value.to_le(), 0, Ordering::Release).is_err() {
            slice.copy_from(&value.to_le_bytes()[..]);
        }
        Ok(())
    }

    /// Make KVM forget its translations of these frames; the bytes stay.
    ///
    /// The kernel does not watch guest page tables that the host edits: an
    /// entry that was removed or restricted goes on working from a TLB or a
    /// shadow page until the *target* page leaves the host mapping. Dropping
    /// it from our mapping (the memfd keeps its bytes) makes the MMU notifier
    /// do that.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`], [`MemoryError::Host`].
    pub fn drop_translations(&self, first: Pfn, pages: u64) -> Result<(), MemoryError> {
        let length = pages.saturating_mul(PAGE_SIZE);
        let offset = self.offset(first.base(), length)?;
        if pages == 0 {
            return Ok(());
        }
        // SAFETY: the range lies inside our own mapping of a shared file, so
        // MADV_DONTNEED loses no bytes, and nobody holds a reference into
        // guest memory: every access goes through volatile slices.
        let result = unsafe {
            libc::madvise(
                self.region.as_ptr().add(offset).cast(),
                length as usize,
                libc::MADV_DONTNEED,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(MemoryError::Host {
                size: length,
                error: io::Error::last_os_error(),
            })
        }
    }

    /// Visit the pages that the memfd holds, ascending; holes are skipped.
    pub(crate) fn for_each_resident(
        &self,
        mut visit: impl FnMut(&Self, u64) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let Some(fd) = self.fd() else { return Ok(()) };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
        let mut at: i64 = 0;
        loop {
            // SAFETY: lseek on our own descriptor changes only its offset,
            // which nobody uses.
            let (start, end) = unsafe {
                let start = libc::lseek(fd, at, libc::SEEK_DATA);
                if start < 0 {
                    return Ok(()); // ENXIO: no data beyond `at`
                }
                (start, libc::lseek(fd, start, libc::SEEK_HOLE))
            };
            let end = if end < 0 { self.size as i64 } else { end };
            for index in start as u64 / PAGE_SIZE..(end as u64).div_ceil(PAGE_SIZE) {
                visit(self, index)?;
            }
            if end <= at {
                return Ok(());
            }
            at = end;
        }
    }

    fn file_page(&self, index: u64) -> Result<VolatileSlice<'_, ()>, MemoryError> {
        let offset = index.saturating_mul(PAGE_SIZE);
        self.region
            .get_slice(offset as usize, PAGE_SIZE as usize)
            .map_err(|_| MemoryError::OutOfRange {
                address: Gpa(offset),
                length: PAGE_SIZE,
            })
    }

    pub(crate) fn read_file_page(&self, index: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        self.file_page(index)?.copy_to(bytes);
        Ok(())
    }

    pub(crate) fn write_file_page(&self, index: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.file_page(index)?.copy_from(bytes);
        Ok(())
    }
}
