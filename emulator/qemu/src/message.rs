//! Messages as bytes, and what they say. Pure: no socket, no device. A peer's
//! bytes are hostile; nothing here panics, and nothing is longer than what
//! the peer sent.

use crate::spec::{self, uapi};

/// What stands before every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which command this is, or answers.
    pub id: u16,
    /// What is asked.
    pub command: u16,
    /// Bytes of the whole message.
    pub size: u32,
    /// Type, NO_REPLY, ERROR.
    pub flags: u32,
    /// errno of a reply.
    pub error: u32,
}

impl Header {
    /// From the first bytes of a message.
    #[must_use]
    pub fn parse(bytes: &[u8; spec::HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Self {
            id: u16::from_le_bytes([a, b]),
            command: u16::from_le_bytes([c, d]),
            size: u32::from_le_bytes([e, f, g, h]),
            flags: u32::from_le_bytes([i, j, k, l]),
            error: u32::from_le_bytes([m, n, o, p]),
        }
    }

    fn bytes(self) -> [u8; spec::HEADER] {
        let mut bytes = [0; spec::HEADER];
        let fields = [
            &self.id.to_le_bytes()[..],
            &self.command.to_le_bytes(),
            &self.size.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.error.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        bytes
    }

    /// Is it a reply?
    #[must_use]
    pub fn is_reply(self) -> bool {
        self.flags & spec::TYPE == spec::TYPE_REPLY
    }

    /// Does the sender want a reply?
    #[must_use]
    pub fn wants_reply(self) -> bool {
        self.flags & spec::NO_REPLY == 0
    }

    /// The errno of a reply that says it failed.
    #[must_use]
    pub fn failure(self) -> Option<u32> {
        (self.flags & spec::ERROR != 0).then_some(self.error)
    }

    /// The successful answer to this command.
    #[must_use]
    pub fn reply(self, body: &[u8]) -> Vec<u8> {
        self.answer(spec::TYPE_REPLY, 0, body)
    }

    /// The answer that it failed.
    #[must_use]
    pub fn refusal(self, errno: Errno) -> Vec<u8> {
        self.answer(spec::TYPE_REPLY | spec::ERROR, errno.0, &[])
    }

    fn answer(self, flags: u32, error: u32, body: &[u8]) -> Vec<u8> {
        let header = Self {
            flags,
            error,
            ..self
        };
        header.with(body)
    }

    fn with(self, body: &[u8]) -> Vec<u8> {
        let header = Self {
            size: (spec::HEADER + body.len()) as u32,
            ..self
        };
        [&header.bytes()[..], body].concat()
    }
}

/// A command of ours.
#[must_use]
pub fn command(id: u16, command: u16, body: &[u8]) -> Vec<u8> {
    let header = Header {
        id,
        command,
        size: 0,
        flags: spec::TYPE_COMMAND,
        error: 0,
    };
    header.with(body)
}

/// The body of DMA_READ of `count` bytes, or of DMA_WRITE of `data`.
#[must_use]
pub fn dma_body(address: u64, count: u32, data: &[u8]) -> Vec<u8> {
    let mut body = address.to_le_bytes().to_vec();
    body.extend_from_slice(&u64::from(count).to_le_bytes());
    body.extend_from_slice(data);
    body
}

/// The bytes that a reply to DMA_READ brings, if it is as long as it says.
#[must_use]
pub fn dma_data(body: &[u8], count: u32) -> Option<&[u8]> {
    body.get(spec::DMA_BODY..)?.get(..count as usize)
}

/// Why a command is refused: a Linux errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    /// There is a mapping already.
    pub const EXIST: Self = Self(17);
    /// The message makes no sense.
    pub const INVAL: Self = Self(22);
    /// Too many mappings.
    pub const NOSPC: Self = Self(28);
    /// No such command.
    pub const NOSYS: Self = Self(38);
    /// Understood, and not done here.
    pub const NOTSUP: Self = Self(95);
}

/// A command of the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Version, and capabilities as JSON.
    Version {
        /// Must be 0.
        major: u16,
        /// 0, or more than we know.
        minor: u16,
        /// Without its NUL.
        capabilities: &'a [u8],
    },
    /// The device may reach a range.
    DmaMap {
        /// `VFIO_DMA_MAP_FLAG_*`.
        flags: u32,
        /// Where in the file.
        offset: u64,
        /// Where for the device.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// It may no longer.
    DmaUnmap {
        /// `VFIO_DMA_UNMAP_FLAG_*`.
        flags: u32,
        /// Where for the device.
        address: u64,
        /// Bytes.
        size: u64,
        /// The body, which the answer repeats.
        body: &'a [u8],
    },
    /// What the device is.
    DeviceInfo {
        /// Bytes of an answer that the client has room for.
        argsz: u32,
    },
    /// What a region is.
    RegionInfo {
        /// Which.
        index: u32,
    },
    /// Files of a region.
    RegionIoFds,
    /// What a kind of interrupt is.
    IrqInfo {
        /// Which.
        index: u32,
    },
    /// Connect, mask or fire interrupts.
    SetIrqs {
        /// `VFIO_IRQ_SET_*`.
        flags: u32,
        /// Which kind.
        index: u32,
        /// The first.
        start: u32,
        /// How many.
        count: u32,
        /// A byte for each, with DATA_BOOL.
        data: &'a [u8],
    },
    /// Read a region.
    RegionRead {
        /// From where.
        offset: u64,
        /// Which.
        region: u32,
        /// Bytes.
        count: u32,
    },
    /// Write a region.
    RegionWrite {
        /// To where.
        offset: u64,
        /// Which.
        region: u32,
        /// What.
        data: &'a [u8],
    },
    /// Back to the state after power-on.
    Reset,
}

/// Numbers off the front of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&mut self) -> Result<u16, Errno> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u16::from_le_bytes(*head))
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*head))
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }
}

impl<'a> Request<'a> {
    /// What a command with this body asks.
    ///
    /// # Errors
    /// [`Errno::NOSYS`] for an unknown command, [`Errno::INVAL`] for a body
    /// that is too short or contradicts itself.
    pub fn parse(command: u16, body: &'a [u8]) -> Result<Self, Errno> {
        let mut fields = Fields(body);
        let f = &mut fields;
        Ok(match command {
            spec::VERSION => Self::Version {
                major: f.u16()?,
                minor: f.u16()?,
                capabilities: {
                    let text = f.0.split(|&byte| byte == 0).next().unwrap_or_default();
                    if text.len() > spec::MAX_CAPABILITIES {
                        return Err(Errno::INVAL);
                    }
                    text
                },
            },
            spec::DMA_MAP => {
                let (_argsz, flags) = (f.u32()?, f.u32()?);
                Self::DmaMap {
                    flags,
                    offset: f.u64()?,
                    address: f.u64()?,
                    size: f.u64()?,
                }
            }
            spec::DMA_UNMAP => {
                let (_argsz, flags) = (f.u32()?, f.u32()?);
                let (address, size) = (f.u64()?, f.u64()?);
                let body = body.get(..24).ok_or(Errno::INVAL)?;
                Self::DmaUnmap {
                    flags,
                    address,
                    size,
                    body,
                }
            }
            spec::DEVICE_GET_INFO => Self::DeviceInfo { argsz: f.u32()? },
            spec::DEVICE_GET_REGION_INFO => {
                let (_argsz, _flags) = (f.u32()?, f.u32()?);
                Self::RegionInfo { index: f.u32()? }
            }
            spec::DEVICE_GET_REGION_IO_FDS => Self::RegionIoFds,
            spec::DEVICE_GET_IRQ_INFO => {
                let (_argsz, _flags) = (f.u32()?, f.u32()?);
                Self::IrqInfo { index: f.u32()? }
            }
            spec::DEVICE_SET_IRQS => {
                let (_argsz, flags) = (f.u32()?, f.u32()?);
                let (index, start, count) = (f.u32()?, f.u32()?, f.u32()?);
                let bools = flags & uapi::VFIO_IRQ_SET_DATA_BOOL != 0;
                let data = match f.0.get(..count as usize) {
                    Some(data) if bools => data,
                    None if bools => return Err(Errno::INVAL),
                    _ => &[],
                };
                Self::SetIrqs {
                    flags,
                    index,
                    start,
                    count,
                    data,
                }
            }
            spec::REGION_READ => Self::RegionRead {
                offset: f.u64()?,
                region: f.u32()?,
                count: f.u32()?,
            },
            spec::REGION_WRITE => {
                let (offset, region, count) = (f.u64()?, f.u32()?, f.u32()?);
                // Exactly what was sent: a count that contradicts the size is
                // a peer that has lost its place.
                if f.0.len() != count as usize {
                    return Err(Errno::INVAL);
                }
                Self::RegionWrite {
                    offset,
                    region,
                    data: f.0,
                }
            }
            spec::DEVICE_RESET => Self::Reset,
            _ => return Err(Errno::NOSYS),
        })
    }
}
