//! The bytes of a PDB as pdb2 asks for them, within limits.

use std::io;

use pdb2::{Source, SourceSlice, SourceView};

/// How many times its own size a file may be read. Each stream of a sound file
/// is read once, and the stream directory once more.
const READS_OF_FILE: u64 = 4;
/// What a small file may be read beyond that, in bytes.
const READ_ALLOWANCE: u64 = 1 << 20;

/// A PDB in memory that bounds what pdb2 allocates.
///
/// The stream directory of a damaged file may name the same page any number of
/// times, in a stream of up to 4 GiB, and any number of modules may name the
/// same stream. pdb2's own source allocates what it is asked for.
#[derive(Debug)]
pub(super) struct BoundedSource<'s> {
    bytes: &'s [u8],
    left: u64,
}

impl<'s> BoundedSource<'s> {
    pub(super) fn new(bytes: &'s [u8]) -> Self {
        let left = (bytes.len() as u64)
            .saturating_mul(READS_OF_FILE)
            .saturating_add(READ_ALLOWANCE);
        Self { bytes, left }
    }

    fn slice(&self, slice: &SourceSlice) -> io::Result<&'s [u8]> {
        let start = usize::try_from(slice.offset).ok();
        start
            .and_then(|start| self.bytes.get(start..start.checked_add(slice.size)?))
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl<'s> Source<'s> for BoundedSource<'s> {
    fn view(
        &mut self,
        slices: &[SourceSlice],
    ) -> Result<Box<dyn SourceView<'s> + Send + Sync>, io::Error> {
        let total = slices
            .iter()
            .fold(0u64, |sum, slice| sum.saturating_add(slice.size as u64));
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if total > self.bytes.len() as u64 {
            return Err(invalid("a stream is larger than the file"));
        }
        self.left = self
            .left
            .checked_sub(total)
            .ok_or_else(|| invalid("the same pages are used by too many streams"))?;
        let mut bytes = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
        for slice in slices {
            bytes.extend_from_slice(self.slice(slice)?);
        }
        Ok(Box::new(View(bytes)))
    }
}

/// A view is owned: pdb2's trait object has a static lifetime.
#[derive(Debug)]
struct View(Vec<u8>);

impl SourceView<'_> for View {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn slices(ranges: &[(u64, usize)]) -> Vec<SourceSlice> {
        ranges
            .iter()
            .map(|&(offset, size)| SourceSlice { offset, size })
            .collect()
    }

    #[test]
    fn slices_are_joined_in_order() {
        let bytes: Vec<u8> = (0..64).collect();
        let mut source = BoundedSource::new(&bytes);

        assert_eq!(source.view(&slices(&[(8, 2)])).unwrap().as_slice(), [8, 9]);
        assert_eq!(
            source.view(&slices(&[(8, 2), (0, 1)])).unwrap().as_slice(),
            [8, 9, 0]
        );
    }

    #[test]
    fn slice_beyond_the_file_is_an_error() {
        let bytes = [0; 64];
        let mut source = BoundedSource::new(&bytes);

        for range in [(63, 2), (u64::MAX, 1), (64, 1)] {
            assert!(source.view(&slices(&[range])).is_err(), "{range:?}");
        }
    }

    #[test]
    fn page_used_many_times_is_an_error() {
        let bytes = vec![0; 4096];
        let mut source = BoundedSource::new(&bytes);

        let larger_than_file = slices(&[(0, 4096), (0, 1)]);
        assert_eq!(
            source.view(&larger_than_file).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );

        let whole = slices(&[(0, 4096)]);
        let mut reads = 0;
        while source.view(&whole).is_ok() {
            reads += 1;
        }
        assert_eq!(reads, (1 << 20) / 4096 + 4);
    }
}
