//! Address types. One type for each space, so that a guest-physical address
//! cannot be used where an IOVA is meant.

use serde::{Deserialize, Serialize};
use std::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page: the unit of MDLs, of second-level leaf entries and of
/// ownership.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The page frame or page number.
            #[must_use]
            pub const fn page(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }

            /// Bytes from the start of the page.
            #[must_use]
            pub const fn offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// The start of the page.
            #[must_use]
            pub const fn page_base(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// `self + bytes`, or `None` past the end of the space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// A guest-physical address: what the CPU's page tables and the IOMMU's
    /// second-level tables lead to.
    Gpa
);
address!(
    /// A guest-virtual address: what the driver's code uses.
    Gva
);
address!(
    /// An I/O virtual address: what a device puts on the bus.
    Iova
);

/// A page frame number: a guest-physical address divided by [`PAGE_SIZE`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Pfn(pub u64);

impl Pfn {
    /// The first byte of the page.
    #[must_use]
    pub const fn base(self) -> Gpa {
        Gpa(self.0 << PAGE_SHIFT)
    }
}

impl From<Gpa> for Pfn {
    fn from(address: Gpa) -> Self {
        Self(address.page())
    }
}

/// Bus, device and function of the requester of a DMA (PCI Express 2.2.6.2).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequesterId(pub u16);

impl RequesterId {
    /// From its parts; `device` has 5 bits and `function` 3.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | ((device & 0x1f) as u16) << 3 | (function & 7) as u16)
    }

    /// The bus number: the index into a VT-d root table.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device and function as one byte: the index into a VT-d context table.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.0 as u8
    }
}

impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (devfn, bus) = (self.devfn(), self.bus());
        write!(f, "{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7)
    }
}

impl fmt::Debug for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequesterId({self})")
    }
}

/// How many pages the `length` bytes from `address` touch.
#[must_use]
pub const fn pages_spanned(address: u64, length: u64) -> u64 {
    if length == 0 {
        return 0;
    }
    let offset = address & (PAGE_SIZE - 1);
    // Written so that no length overflows: offset < PAGE_SIZE.
    (length >> PAGE_SHIFT) + ((length & (PAGE_SIZE - 1)) + offset).div_ceil(PAGE_SIZE)
}
