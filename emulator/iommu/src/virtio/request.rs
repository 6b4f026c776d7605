//! Requests as the driver wrote them. A driver's bytes are hostile: what is
//! too short for its type, or of no type that was agreed on, is no request.

use crate::spec::virtio::{feature, request as code};

/// A request whose fields are there. What they say is not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Attach {
        domain: u32,
        endpoint: u32,
        flags: u32,
        reserved: u32,
    },
    Detach {
        domain: u32,
        endpoint: u32,
    },
    Map {
        domain: u32,
        first: u64,
        last: u64,
        physical: u64,
        flags: u32,
    },
    Unmap {
        domain: u32,
        first: u64,
        last: u64,
        reserved: u32,
    },
    Probe {
        endpoint: u32,
    },
}

impl Request {
    /// What the device-readable bytes of a request say; `None`: the device
    /// does not know what it is to do, and writes nothing (§5.13.6).
    pub fn parse(bytes: &[u8], features: u64) -> Option<Self> {
        let word = |at: usize| -> Option<u32> {
            let bytes = bytes.get(at..)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let long = |at: usize| -> Option<u64> {
            let bytes = bytes.get(at..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let has = |feature: u64| (features & feature != 0).then_some(());
        let whole = |size: usize| (bytes.len() >= size).then_some(());
        Some(match *bytes.first()? {
            code::ATTACH => {
                whole(code::ATTACH_SIZE)?;
                Self::Attach {
                    domain: word(4)?,
                    endpoint: word(8)?,
                    flags: word(12)?,
                    reserved: word(16)?,
                }
            }
            code::DETACH => {
                whole(code::DETACH_SIZE)?;
                Self::Detach {
                    domain: word(4)?,
                    endpoint: word(8)?,
                }
            }
            code::MAP => {
                has(feature::MAP_UNMAP)?;
                whole(code::MAP_SIZE)?;
                Self::Map {
                    domain: word(4)?,
                    first: long(8)?,
                    last: long(16)?,
                    physical: long(24)?,
                    flags: word(32)?,
                }
            }
            code::UNMAP => {
                has(feature::MAP_UNMAP)?;
                whole(code::UNMAP_SIZE)?;
                Self::Unmap {
                    domain: word(4)?,
                    first: long(8)?,
                    last: long(16)?,
                    reserved: word(24)?,
                }
            }
            code::PROBE => {
                has(feature::PROBE)?;
                whole(code::PROBE_SIZE)?;
                Self::Probe { endpoint: word(4)? }
            }
            _ => return None,
        })
    }
}
