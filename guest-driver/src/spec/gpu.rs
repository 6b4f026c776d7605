//! virtio 1.2 §5.7: the GPU device's control queue and configuration.

use super::layout;

/// The control queue (§5.7.2).
pub const CONTROL_QUEUE: u16 = 0;
/// The cursor queue.
pub const CURSOR_QUEUE: u16 = 1;

/// Feature (§5.7.3): GET_EDID.
pub const F_EDID: u64 = 1 << 1;
/// Feature: blob resources.
pub const F_RESOURCE_BLOB: u64 = 1 << 3;

/// Device configuration: events pending, u32 (§5.7.4).
pub const CONFIG_EVENTS_READ: usize = 0;
/// Device configuration: events to clear, u32.
pub const CONFIG_EVENTS_CLEAR: usize = 4;
/// Device configuration: number of scanouts, u32.
pub const CONFIG_NUM_SCANOUTS: usize = 8;

/// VIRTIO_GPU_CMD_GET_DISPLAY_INFO (§5.7.6.7).
pub const CMD_GET_DISPLAY_INFO: u32 = 0x0100;
/// VIRTIO_GPU_CMD_RESOURCE_CREATE_2D.
pub const CMD_RESOURCE_CREATE_2D: u32 = 0x0101;
/// VIRTIO_GPU_CMD_RESOURCE_UNREF.
pub const CMD_RESOURCE_UNREF: u32 = 0x0102;
/// VIRTIO_GPU_CMD_SET_SCANOUT.
pub const CMD_SET_SCANOUT: u32 = 0x0103;
/// VIRTIO_GPU_CMD_RESOURCE_FLUSH.
pub const CMD_RESOURCE_FLUSH: u32 = 0x0104;
/// VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D.
pub const CMD_TRANSFER_TO_HOST_2D: u32 = 0x0105;
/// VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING.
pub const CMD_RESOURCE_ATTACH_BACKING: u32 = 0x0106;
/// VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING.
pub const CMD_RESOURCE_DETACH_BACKING: u32 = 0x0107;

/// VIRTIO_GPU_CMD_GET_EDID.
pub const CMD_GET_EDID: u32 = 0x010A;
/// VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB.
pub const CMD_RESOURCE_CREATE_BLOB: u32 = 0x010C;
/// VIRTIO_GPU_CMD_SET_SCANOUT_BLOB.
pub const CMD_SET_SCANOUT_BLOB: u32 = 0x010D;
/// VIRTIO_GPU_CMD_UPDATE_CURSOR (§5.7.6.10).
pub const CMD_UPDATE_CURSOR: u32 = 0x0300;
/// VIRTIO_GPU_CMD_MOVE_CURSOR.
pub const CMD_MOVE_CURSOR: u32 = 0x0301;

/// VIRTIO_GPU_RESP_OK_NODATA.
pub const RESP_OK_NODATA: u32 = 0x1100;
/// VIRTIO_GPU_RESP_OK_DISPLAY_INFO.
pub const RESP_OK_DISPLAY_INFO: u32 = 0x1101;
/// VIRTIO_GPU_RESP_OK_EDID.
pub const RESP_OK_EDID: u32 = 0x1104;
/// First response type that is an error.
pub const RESP_ERR_FIRST: u32 = 0x1200;

/// VIRTIO_GPU_FLAG_FENCE: answer only when the work is done (§5.7.6.7).
pub const FLAG_FENCE: u32 = 1;
/// VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM.
pub const FORMAT_B8G8R8A8: u32 = 1;
/// VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM.
pub const FORMAT_B8G8R8X8: u32 = 2;
/// Scanouts that a display information response has room for.
pub const MAX_SCANOUTS: usize = 16;

/// struct virtio_gpu_ctrl_hdr.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    /// Command or response type.
    pub kind: u32,
    /// FLAG_* bits.
    pub flags: u32,
    /// Fence, with FLAG_FENCE.
    pub fence: u64,
    /// 3D context, unused.
    pub context: u32,
    /// Ring index and padding.
    pub padding: u32,
}
layout!(Header, 24, kind: 0, flags: 4, fence: 8, context: 16, padding: 20);

/// struct virtio_gpu_rect.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rect {
    /// Left.
    pub x: u32,
    /// Top.
    pub y: u32,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}
layout!(Rect, 16);

/// Header, resource id and padding: unref and detach.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceCommand {
    /// Which command.
    pub header: Header,
    /// Which resource.
    pub resource: u32,
    /// Zero.
    pub padding: u32,
}
layout!(ResourceCommand, 32, resource: 24);

/// struct virtio_gpu_resource_create_2d.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Create2d {
    /// CMD_RESOURCE_CREATE_2D.
    pub header: Header,
    /// The new resource's id, chosen by the driver.
    pub resource: u32,
    /// FORMAT_*.
    pub format: u32,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}
layout!(Create2d, 40, resource: 24, format: 28, width: 32, height: 36);

/// struct virtio_gpu_resource_attach_backing; the entries follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachBacking {
    /// CMD_RESOURCE_ATTACH_BACKING.
    pub header: Header,
    /// Which resource.
    pub resource: u32,
    /// Entries that follow.
    pub entries: u32,
}
layout!(AttachBacking, 32, resource: 24, entries: 28);

/// struct virtio_gpu_mem_entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MemEntry {
    /// Device address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// Zero.
    pub padding: u32,
}
layout!(MemEntry, 16, address: 0, length: 8);

/// struct virtio_gpu_set_scanout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SetScanout {
    /// CMD_SET_SCANOUT.
    pub header: Header,
    /// What of the resource is shown.
    pub rect: Rect,
    /// Which scanout.
    pub scanout: u32,
    /// Which resource; 0 turns the scanout off.
    pub resource: u32,
}
layout!(SetScanout, 48, rect: 24, scanout: 40, resource: 44);

/// struct virtio_gpu_transfer_to_host_2d.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TransferToHost2d {
    /// CMD_TRANSFER_TO_HOST_2D.
    pub header: Header,
    /// What to transfer.
    pub rect: Rect,
    /// Byte of the backing where the rectangle starts.
    pub offset: u64,
    /// Which resource.
    pub resource: u32,
    /// Zero.
    pub padding: u32,
}
layout!(TransferToHost2d, 56, rect: 24, offset: 40, resource: 48);

/// struct virtio_gpu_resource_flush.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceFlush {
    /// CMD_RESOURCE_FLUSH.
    pub header: Header,
    /// What to show anew.
    pub rect: Rect,
    /// Which resource.
    pub resource: u32,
    /// Zero.
    pub padding: u32,
}
layout!(ResourceFlush, 48, rect: 24, resource: 40);

/// struct virtio_gpu_display_one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DisplayOne {
    /// Preferred position and size.
    pub rect: Rect,
    /// Nonzero: a display is connected.
    pub enabled: u32,
    /// Zero.
    pub flags: u32,
}
layout!(DisplayOne, 24, enabled: 16);

/// Bytes of struct virtio_gpu_resp_display_info.
pub const DISPLAY_INFO_SIZE: usize = 24 + MAX_SCANOUTS * 24;

/// struct virtio_gpu_get_edid.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct GetEdid {
    /// CMD_GET_EDID.
    pub header: Header,
    /// Which scanout.
    pub scanout: u32,
    /// Zero.
    pub padding: u32,
}
layout!(GetEdid, 32, scanout: 24);

/// struct virtio_gpu_resp_edid: bytes of EDID at most.
pub const EDID_ROOM: usize = 1024;
/// The same: where the number of bytes is, u32.
pub const EDID_SIZE_AT: usize = 24;
/// The same: where the EDID is.
pub const EDID_AT: usize = 32;
/// Bytes of struct virtio_gpu_resp_edid.
pub const EDID_RESPONSE_SIZE: usize = EDID_AT + EDID_ROOM;

/// struct virtio_gpu_resource_create_blob; the entries follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateBlob {
    /// CMD_RESOURCE_CREATE_BLOB.
    pub header: Header,
    /// The new resource's id, chosen by the driver.
    pub resource: u32,
    /// BLOB_MEM_*.
    pub memory: u32,
    /// BLOB_FLAG_*.
    pub flags: u32,
    /// Entries that follow.
    pub entries: u32,
    /// Of a 3D context; zero.
    pub blob: u64,
    /// Bytes.
    pub size: u64,
}
layout!(CreateBlob, 56, resource: 24, memory: 28, flags: 32, entries: 36, blob: 40, size: 48);

/// VIRTIO_GPU_BLOB_MEM_GUEST: in guest memory.
pub const BLOB_MEM_GUEST: u32 = 1;
/// VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE.
pub const BLOB_FLAG_SHAREABLE: u32 = 2;

/// struct virtio_gpu_set_scanout_blob.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SetScanoutBlob {
    /// CMD_SET_SCANOUT_BLOB.
    pub header: Header,
    /// What of the picture is shown.
    pub rect: Rect,
    /// Which scanout.
    pub scanout: u32,
    /// Which resource.
    pub resource: u32,
    /// Pixels a row of the picture.
    pub width: u32,
    /// Its rows.
    pub height: u32,
    /// FORMAT_*.
    pub format: u32,
    /// Zero.
    pub padding: u32,
    /// Bytes a row, of four planes.
    pub strides: [u32; 4],
    /// First byte, of four planes.
    pub offsets: [u32; 4],
}
layout!(
    SetScanoutBlob, 96, rect: 24, scanout: 40, resource: 44, width: 48, height: 52,
    format: 56, strides: 64, offsets: 80,
);

/// struct virtio_gpu_update_cursor, for both cursor commands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct UpdateCursor {
    /// CMD_UPDATE_CURSOR or CMD_MOVE_CURSOR.
    pub header: Header,
    /// Which scanout.
    pub scanout: u32,
    /// Where the hot spot is, from the left.
    pub x: u32,
    /// The same from the top.
    pub y: u32,
    /// Zero.
    pub position_padding: u32,
    /// Resource with the picture; 0 hides the cursor.
    pub resource: u32,
    /// Which pixel of the picture is the hot spot.
    pub hot_x: u32,
    /// The same from the top.
    pub hot_y: u32,
    /// Zero.
    pub padding: u32,
}
layout!(UpdateCursor, 56, scanout: 24, x: 28, y: 32, resource: 40, hot_x: 44, hot_y: 48);
