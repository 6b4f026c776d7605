//! Pixel formats (§5.7.6.8, enum virtio_gpu_formats): 32 bits a pixel, named
//! by their bytes in memory.

/// Bytes a pixel, in every format of the standard.
pub const BYTES: u32 = 4;

/// A format: its number, its name, and at which byte each channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// Its number.
    pub number: u32,
    /// Its name, without VIRTIO_GPU_FORMAT_ and _UNORM.
    pub name: &'static str,
    /// Where blue, green and red are in a pixel.
    pub bgr: [usize; 3],
    /// Where alpha is, if there is alpha.
    pub alpha: Option<usize>,
}

/// Every format of the standard.
pub const FORMATS: &[Format] = &[
    row(1, "B8G8R8A8", [0, 1, 2], Some(3)),
    row(2, "B8G8R8X8", [0, 1, 2], None),
    row(3, "A8R8G8B8", [3, 2, 1], Some(0)),
    row(4, "X8R8G8B8", [3, 2, 1], None),
    row(67, "R8G8B8A8", [2, 1, 0], Some(3)),
    row(68, "X8B8G8R8", [1, 2, 3], None),
    row(121, "A8B8G8R8", [1, 2, 3], Some(0)),
    row(134, "R8G8B8X8", [2, 1, 0], None),
];

/// The format of a cursor in a blob, which says none.
pub const CURSOR_FORMAT: Format = row(1, "B8G8R8A8", [0, 1, 2], Some(3));

const fn row(number: u32, name: &'static str, bgr: [usize; 3], alpha: Option<usize>) -> Format {
    Format {
        number,
        name,
        bgr,
        alpha,
    }
}
