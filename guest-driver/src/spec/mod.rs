//! What the standards and public headers say: registers, structures and
//! constants, each layout asserted at compile time. No behaviour.
//!
//! Layouts of Windows structures are facts taken from Microsoft's documented
//! field orders with natural x64 alignment, and from public symbol-derived
//! dumps of them; what comes from public header knowledge alone says so.

pub mod ddi;
pub mod dxgk;
pub mod gpu;
pub mod nt;
pub mod pci;
pub mod query;
pub mod telling;
pub mod virtio;

/// Asserts at compile time that fields of a `repr(C)` structure lie where
/// the specification has them.
macro_rules! layout {
    ($name:ty, $size:expr $(, $field:ident: $offset:expr)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };
    };
}
pub(crate) use layout;
