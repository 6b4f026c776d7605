//! Entry for fuzz targets.
pub fn fuzz(_data: &[u8]) {}
