//! Commands as the driver wrote them, read from bytes with bounds.

use crate::blob::Picture;
use crate::cursor::Image;
use crate::resource::Rect;
use crate::spec::command as spec;
use memory::Iova;

/// Most entries of one ATTACH_BACKING.
pub const MAX_ENTRIES: u32 = 16_384;
/// Most bytes of a command that are read.
pub const MAX_COMMAND: usize = spec::BLOB_SIZE + MAX_ENTRIES as usize * spec::ENTRY_SIZE;

/// struct virtio_gpu_ctrl_hdr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Control type.
    pub kind: u32,
    /// Flags.
    pub flags: u32,
    /// Fence id.
    pub fence: u64,
    /// 3D context.
    pub context: u32,
}

impl Header {
    /// From the first bytes of a command, if they are all there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, spec::HEADER_TYPE)?,
            flags: u32_at(bytes, spec::HEADER_FLAGS)?,
            fence: u64_at(bytes, spec::HEADER_FENCE)?,
            // The last four bytes are ring index and padding.
            context: u64_at(bytes, spec::HEADER_CONTEXT)? as u32,
        })
    }
}

/// How much of a command must be read before it can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// This many bytes in all.
    Bytes(usize),
    /// No more: it is refused with this response.
    Refused(u32),
}

/// The control type as the driver may use it: a command of a feature that it
/// did not take is unknown.
fn kind(header: Header, features: u64) -> Option<u32> {
    let needed = spec::FEATURES.iter().find(|(kind, _)| *kind == header.kind);
    needed
        .is_none_or(|(_, feature)| features & feature != 0)
        .then_some(header.kind)
}

/// What is needed of a command, by what was read of it so far and by the
/// features that the driver took.
pub fn need(bytes: &[u8], features: u64) -> Need {
    let Some(header) = Header::parse(bytes) else {
        return Need::Bytes(spec::HEADER_SIZE);
    };
    let Some(kind) = kind(header, features) else {
        return Need::Bytes(spec::HEADER_SIZE);
    };
    Need::Bytes(match kind {
        spec::RESOURCE_CREATE_2D => spec::CREATE_SIZE,
        spec::RESOURCE_UNREF
        | spec::RESOURCE_DETACH_BACKING
        | spec::RESOURCE_ASSIGN_UUID
        | spec::RESOURCE_UNMAP_BLOB => spec::RESOURCE_SIZE,
        spec::RESOURCE_MAP_BLOB => spec::MAP_BLOB_SIZE,
        spec::SET_SCANOUT_BLOB => spec::SCANOUT_BLOB_SIZE,
        spec::GET_EDID => spec::GET_EDID_SIZE,
        spec::SET_SCANOUT => spec::SCANOUT_SIZE,
        spec::RESOURCE_FLUSH => spec::FLUSH_SIZE,
        spec::TRANSFER_TO_HOST_2D => spec::TRANSFER_SIZE,
        spec::RESOURCE_ATTACH_BACKING => {
            return with_entries(spec::ATTACH_SIZE, u32_at(bytes, spec::ATTACH_ENTRIES));
        }
        spec::RESOURCE_CREATE_BLOB => {
            return with_entries(spec::BLOB_SIZE, u32_at(bytes, spec::BLOB_ENTRIES));
        }
        spec::UPDATE_CURSOR | spec::MOVE_CURSOR => spec::CURSOR_SIZE,
        _ => spec::HEADER_SIZE,
    })
}

/// What a command needs that ends with `count` entries of backing.
fn with_entries(before: usize, count: Option<u32>) -> Need {
    match count {
        None => Need::Bytes(before),
        Some(count) if count > MAX_ENTRIES => Need::Refused(spec::ERR_OUT_OF_MEMORY),
        Some(count) => Need::Bytes(before + count as usize * spec::ENTRY_SIZE),
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    GetDisplayInfo,
    Create {
        resource: u32,
        format: u32,
        width: u32,
        height: u32,
    },
    Unref {
        resource: u32,
    },
    SetScanout {
        scanout: u32,
        resource: u32,
        rect: Rect,
    },
    Flush {
        resource: u32,
        rect: Rect,
    },
    Transfer {
        resource: u32,
        rect: Rect,
        offset: u64,
    },
    Attach {
        resource: u32,
        entries: Vec<(Iova, u32)>,
    },
    Detach {
        resource: u32,
    },
    GetEdid {
        scanout: u32,
    },
    AssignUuid {
        resource: u32,
    },
    CreateBlob {
        resource: u32,
        memory: u32,
        flags: u32,
        size: u64,
        entries: Vec<(Iova, u32)>,
    },
    SetScanoutBlob {
        scanout: u32,
        resource: u32,
        rect: Rect,
        picture: Picture,
    },
    MapBlob {
        resource: u32,
    },
    UnmapBlob {
        resource: u32,
    },
    /// Without an image it is a mere move.
    Cursor {
        scanout: u32,
        at: (u32, u32),
        image: Option<Image>,
    },
    Unknown,
}

impl Command {
    /// From all its bytes ([`need`]); `None` if some are missing.
    pub fn parse(bytes: &[u8], features: u64) -> Option<Self> {
        let word = |at| u32_at(bytes, at);
        let header = Header::parse(bytes)?;
        let Some(kind) = kind(header, features) else {
            return Some(Self::Unknown);
        };
        Some(match kind {
            spec::GET_DISPLAY_INFO => Self::GetDisplayInfo,
            spec::RESOURCE_CREATE_2D => Self::Create {
                resource: word(spec::CREATE_RESOURCE)?,
                format: word(spec::CREATE_FORMAT)?,
                width: word(spec::CREATE_WIDTH)?,
                height: word(spec::CREATE_HEIGHT)?,
            },
            spec::RESOURCE_UNREF => Self::Unref {
                resource: word(spec::RESOURCE_ID)?,
            },
            spec::SET_SCANOUT => Self::SetScanout {
                scanout: word(spec::SCANOUT_ID)?,
                resource: word(spec::SCANOUT_RESOURCE)?,
                rect: rect(bytes)?,
            },
            spec::RESOURCE_FLUSH => Self::Flush {
                resource: word(spec::FLUSH_RESOURCE)?,
                rect: rect(bytes)?,
            },
            spec::TRANSFER_TO_HOST_2D => Self::Transfer {
                resource: word(spec::TRANSFER_RESOURCE)?,
                rect: rect(bytes)?,
                offset: u64_at(bytes, spec::TRANSFER_OFFSET)?,
            },
            spec::RESOURCE_ATTACH_BACKING => Self::Attach {
                resource: word(spec::ATTACH_RESOURCE)?,
                entries: entries(bytes, spec::ATTACH_SIZE, word(spec::ATTACH_ENTRIES)?)?,
            },
            spec::RESOURCE_DETACH_BACKING => Self::Detach {
                resource: word(spec::RESOURCE_ID)?,
            },
            spec::GET_EDID => Self::GetEdid {
                scanout: word(spec::GET_EDID_SCANOUT)?,
            },
            spec::RESOURCE_ASSIGN_UUID => Self::AssignUuid {
                resource: word(spec::RESOURCE_ID)?,
            },
            spec::RESOURCE_CREATE_BLOB => Self::CreateBlob {
                resource: word(spec::RESOURCE_ID)?,
                memory: word(spec::BLOB_MEM)?,
                flags: word(spec::BLOB_FLAGS)?,
                size: u64_at(bytes, spec::BLOB_BYTES)?,
                entries: entries(bytes, spec::BLOB_SIZE, word(spec::BLOB_ENTRIES)?)?,
            },
            spec::SET_SCANOUT_BLOB => Self::SetScanoutBlob {
                scanout: word(spec::SCANOUT_ID)?,
                resource: word(spec::SCANOUT_RESOURCE)?,
                rect: rect(bytes)?,
                picture: Picture {
                    width: word(spec::SCANOUT_BLOB_WIDTH)?,
                    height: word(spec::SCANOUT_BLOB_HEIGHT)?,
                    format: word(spec::SCANOUT_BLOB_FORMAT)?,
                    stride: word(spec::SCANOUT_BLOB_STRIDE)?,
                    offset: word(spec::SCANOUT_BLOB_OFFSET)?,
                },
            },
            spec::RESOURCE_MAP_BLOB => Self::MapBlob {
                resource: word(spec::RESOURCE_ID)?,
            },
            spec::RESOURCE_UNMAP_BLOB => Self::UnmapBlob {
                resource: word(spec::RESOURCE_ID)?,
            },
            spec::UPDATE_CURSOR | spec::MOVE_CURSOR => Self::Cursor {
                scanout: word(spec::CURSOR_SCANOUT)?,
                at: (word(spec::CURSOR_X)?, word(spec::CURSOR_Y)?),
                image: match kind {
                    spec::UPDATE_CURSOR => Some(Image {
                        resource: word(spec::CURSOR_RESOURCE)?,
                        hot: (word(spec::CURSOR_HOT_X)?, word(spec::CURSOR_HOT_Y)?),
                    }),
                    _ => None,
                },
            },
            _ => Self::Unknown,
        })
    }

    /// The resource it works on, if it is one.
    pub fn resource(&self) -> Option<u32> {
        match self {
            Self::GetDisplayInfo | Self::GetEdid { .. } | Self::Unknown => None,
            Self::Create { resource, .. }
            | Self::Unref { resource }
            | Self::SetScanout { resource, .. }
            | Self::Flush { resource, .. }
            | Self::Transfer { resource, .. }
            | Self::Attach { resource, .. }
            | Self::Detach { resource }
            | Self::AssignUuid { resource }
            | Self::CreateBlob { resource, .. }
            | Self::SetScanoutBlob { resource, .. }
            | Self::MapBlob { resource }
            | Self::UnmapBlob { resource } => Some(*resource),
            Self::Cursor { image, .. } => image.map(|image| image.resource),
        }
    }

    /// What it works on, in words.
    pub fn detail(&self) -> String {
        match self {
            Self::GetDisplayInfo | Self::Unknown => String::new(),
            Self::Create {
                resource,
                format,
                width,
                height,
            } => {
                let format = crate::resource::format(*format)
                    .map_or_else(|| format!("format {format}"), |f| f.name.to_owned());
                format!("resource {resource}, {width}x{height}, {format}")
            }
            Self::Unref { resource }
            | Self::Detach { resource }
            | Self::AssignUuid { resource }
            | Self::MapBlob { resource }
            | Self::UnmapBlob { resource } => format!("resource {resource}"),
            Self::CreateBlob {
                resource,
                size,
                entries,
                ..
            } => format!(
                "resource {resource}, {size} bytes, {} entries",
                entries.len()
            ),
            Self::SetScanoutBlob {
                scanout,
                resource,
                rect,
                picture,
            } => format!(
                "scanout {scanout}, resource {resource}, {rect}, {} bytes a row from byte {}",
                picture.stride, picture.offset
            ),
            Self::GetEdid { scanout } => format!("scanout {scanout}"),
            Self::SetScanout {
                scanout,
                resource,
                rect,
            } => format!("scanout {scanout}, resource {resource}, {rect}"),
            Self::Flush { resource, rect } => format!("resource {resource}, {rect}"),
            Self::Transfer {
                resource,
                rect,
                offset: 0,
            } => format!("resource {resource}, {rect}"),
            Self::Transfer {
                resource,
                rect,
                offset,
            } => format!("resource {resource}, {rect}, from byte {offset}"),
            Self::Attach { resource, entries } => {
                let bytes: u64 = entries.iter().map(|&(_, length)| u64::from(length)).sum();
                let count = entries.len();
                format!("resource {resource}, {count} entries, {bytes} bytes")
            }
            Self::Cursor {
                scanout,
                at: (x, y),
                image,
            } => {
                let (x, y) = (*x as i32, *y as i32);
                match image {
                    Some(Image { resource, .. }) => {
                        format!("scanout {scanout}, resource {resource}, at {x},{y}")
                    }
                    None => format!("scanout {scanout}, at {x},{y}"),
                }
            }
        }
    }
}

/// The name of a control type. Those of no standard share one, or a hostile
/// guest could fill the journal's table of names.
pub fn name(kind: u32) -> &'static str {
    named(spec::NAMES, kind)
}

/// The name of a response.
pub fn response_name(code: u32) -> &'static str {
    named(spec::RESPONSE_NAMES, code)
}

fn named(names: &[(u32, &'static str)], number: u32) -> &'static str {
    names
        .iter()
        .find(|(known, _)| *known == number)
        .map_or("UNKNOWN", |(_, name)| name)
}

fn rect(bytes: &[u8]) -> Option<Rect> {
    Some(Rect {
        x: u32_at(bytes, spec::RECT)?,
        y: u32_at(bytes, spec::RECT + 4)?,
        width: u32_at(bytes, spec::RECT + 8)?,
        height: u32_at(bytes, spec::RECT + 12)?,
    })
}

fn entries(bytes: &[u8], start: usize, count: u32) -> Option<Vec<(Iova, u32)>> {
    let end = start + count.min(MAX_ENTRIES) as usize * spec::ENTRY_SIZE;
    bytes
        .get(start..end)?
        .chunks_exact(spec::ENTRY_SIZE)
        .map(|entry| Some((Iova(u64_at(entry, 0)?), u32_at(entry, 8)?)))
        .collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
