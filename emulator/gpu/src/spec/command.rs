//! Control types, and the layouts of commands and responses (§5.7.6).
//! Everything is little-endian.

/// VIRTIO_GPU_CMD_GET_DISPLAY_INFO (§5.7.6.8).
pub const GET_DISPLAY_INFO: u32 = 0x0100;
/// VIRTIO_GPU_CMD_RESOURCE_CREATE_2D.
pub const RESOURCE_CREATE_2D: u32 = 0x0101;
/// VIRTIO_GPU_CMD_RESOURCE_UNREF.
pub const RESOURCE_UNREF: u32 = 0x0102;
/// VIRTIO_GPU_CMD_SET_SCANOUT.
pub const SET_SCANOUT: u32 = 0x0103;
/// VIRTIO_GPU_CMD_RESOURCE_FLUSH.
pub const RESOURCE_FLUSH: u32 = 0x0104;
/// VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D.
pub const TRANSFER_TO_HOST_2D: u32 = 0x0105;
/// VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING.
pub const RESOURCE_ATTACH_BACKING: u32 = 0x0106;
/// VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING.
pub const RESOURCE_DETACH_BACKING: u32 = 0x0107;
/// VIRTIO_GPU_CMD_GET_CAPSET_INFO: of 3D, not done.
pub const GET_CAPSET_INFO: u32 = 0x0108;
/// VIRTIO_GPU_CMD_GET_EDID.
pub const GET_EDID: u32 = 0x010a;
/// VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID.
pub const RESOURCE_ASSIGN_UUID: u32 = 0x010b;
/// VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB.
pub const RESOURCE_CREATE_BLOB: u32 = 0x010c;
/// VIRTIO_GPU_CMD_SET_SCANOUT_BLOB.
pub const SET_SCANOUT_BLOB: u32 = 0x010d;
/// VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB.
pub const RESOURCE_MAP_BLOB: u32 = 0x0208;
/// VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB.
pub const RESOURCE_UNMAP_BLOB: u32 = 0x0209;
/// VIRTIO_GPU_CMD_UPDATE_CURSOR (§5.7.6.10).
pub const UPDATE_CURSOR: u32 = 0x0300;
/// VIRTIO_GPU_CMD_MOVE_CURSOR.
pub const MOVE_CURSOR: u32 = 0x0301;

/// VIRTIO_GPU_RESP_OK_NODATA.
pub const OK_NODATA: u32 = 0x1100;
/// VIRTIO_GPU_RESP_OK_DISPLAY_INFO.
pub const OK_DISPLAY_INFO: u32 = 0x1101;
/// VIRTIO_GPU_RESP_OK_EDID.
pub const OK_EDID: u32 = 0x1104;
/// VIRTIO_GPU_RESP_OK_RESOURCE_UUID.
pub const OK_RESOURCE_UUID: u32 = 0x1105;
/// VIRTIO_GPU_RESP_ERR_UNSPEC.
pub const ERR_UNSPEC: u32 = 0x1200;
/// VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY.
pub const ERR_OUT_OF_MEMORY: u32 = 0x1201;
/// VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID.
pub const ERR_INVALID_SCANOUT_ID: u32 = 0x1202;
/// VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID.
pub const ERR_INVALID_RESOURCE_ID: u32 = 0x1203;
/// VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER.
pub const ERR_INVALID_PARAMETER: u32 = 0x1205;

/// Names of the control types, without the VIRTIO_GPU_CMD_ before them; those
/// that belong to a feature that is not offered (3D) too,
/// so that a journal can say what was asked.
pub const NAMES: &[(u32, &str)] = &[
    (GET_DISPLAY_INFO, "GET_DISPLAY_INFO"),
    (RESOURCE_CREATE_2D, "RESOURCE_CREATE_2D"),
    (RESOURCE_UNREF, "RESOURCE_UNREF"),
    (SET_SCANOUT, "SET_SCANOUT"),
    (RESOURCE_FLUSH, "RESOURCE_FLUSH"),
    (TRANSFER_TO_HOST_2D, "TRANSFER_TO_HOST_2D"),
    (RESOURCE_ATTACH_BACKING, "RESOURCE_ATTACH_BACKING"),
    (RESOURCE_DETACH_BACKING, "RESOURCE_DETACH_BACKING"),
    (GET_CAPSET_INFO, "GET_CAPSET_INFO"),
    (0x0109, "GET_CAPSET"),
    (GET_EDID, "GET_EDID"),
    (RESOURCE_ASSIGN_UUID, "RESOURCE_ASSIGN_UUID"),
    (RESOURCE_CREATE_BLOB, "RESOURCE_CREATE_BLOB"),
    (SET_SCANOUT_BLOB, "SET_SCANOUT_BLOB"),
    (0x0200, "CTX_CREATE"),
    (0x0201, "CTX_DESTROY"),
    (0x0202, "CTX_ATTACH_RESOURCE"),
    (0x0203, "CTX_DETACH_RESOURCE"),
    (0x0204, "RESOURCE_CREATE_3D"),
    (0x0205, "TRANSFER_TO_HOST_3D"),
    (0x0206, "TRANSFER_FROM_HOST_3D"),
    (0x0207, "SUBMIT_3D"),
    (RESOURCE_MAP_BLOB, "RESOURCE_MAP_BLOB"),
    (RESOURCE_UNMAP_BLOB, "RESOURCE_UNMAP_BLOB"),
    (UPDATE_CURSOR, "UPDATE_CURSOR"),
    (MOVE_CURSOR, "MOVE_CURSOR"),
];

/// Commands that exist only with a feature (§5.7.6.8).
pub const FEATURES: &[(u32, u64)] = &[
    (GET_EDID, super::F_EDID),
    (RESOURCE_ASSIGN_UUID, super::F_RESOURCE_UUID),
    (RESOURCE_CREATE_BLOB, super::F_RESOURCE_BLOB),
    (SET_SCANOUT_BLOB, super::F_RESOURCE_BLOB),
    (RESOURCE_MAP_BLOB, super::F_RESOURCE_BLOB),
    (RESOURCE_UNMAP_BLOB, super::F_RESOURCE_BLOB),
];

/// Names of the responses, without the VIRTIO_GPU_RESP_ before them.
pub const RESPONSE_NAMES: &[(u32, &str)] = &[
    (OK_NODATA, "OK_NODATA"),
    (OK_DISPLAY_INFO, "OK_DISPLAY_INFO"),
    (OK_EDID, "OK_EDID"),
    (OK_RESOURCE_UUID, "OK_RESOURCE_UUID"),
    (ERR_UNSPEC, "ERR_UNSPEC"),
    (ERR_OUT_OF_MEMORY, "ERR_OUT_OF_MEMORY"),
    (ERR_INVALID_SCANOUT_ID, "ERR_INVALID_SCANOUT_ID"),
    (ERR_INVALID_RESOURCE_ID, "ERR_INVALID_RESOURCE_ID"),
    (ERR_INVALID_PARAMETER, "ERR_INVALID_PARAMETER"),
];

/// VIRTIO_GPU_FLAG_FENCE: answer only when the work is done, and say which
/// fence it was (§5.7.6.7).
pub const FLAG_FENCE: u32 = 1;

/// struct virtio_gpu_ctrl_hdr: bytes.
pub const HEADER_SIZE: usize = 24;
/// Header: type, u32.
pub const HEADER_TYPE: usize = 0;
/// Header: flags, u32.
pub const HEADER_FLAGS: usize = 4;
/// Header: fence, u64.
pub const HEADER_FENCE: usize = 8;
/// Header: 3D context, u32.
pub const HEADER_CONTEXT: usize = 16;

/// struct virtio_gpu_resource_create_2d: bytes.
pub const CREATE_SIZE: usize = 40;
/// Create: resource id, u32.
pub const CREATE_RESOURCE: usize = 24;
/// Create: format, u32.
pub const CREATE_FORMAT: usize = 28;
/// Create: width, u32.
pub const CREATE_WIDTH: usize = 32;
/// Create: height, u32.
pub const CREATE_HEIGHT: usize = 36;

/// struct virtio_gpu_resource_unref, _detach_backing, _assign_uuid and
/// _unmap_blob: bytes.
pub const RESOURCE_SIZE: usize = 32;
/// The same, and map blob: resource id, u32.
pub const RESOURCE_ID: usize = 24;

/// A struct virtio_gpu_rect after the header: x, y, width, height, u32 each.
pub const RECT: usize = 24;

/// struct virtio_gpu_set_scanout: bytes; the rectangle is at [`RECT`].
pub const SCANOUT_SIZE: usize = 48;
/// Set scanout: scanout id, u32.
pub const SCANOUT_ID: usize = 40;
/// Set scanout: resource id, u32.
pub const SCANOUT_RESOURCE: usize = 44;

/// struct virtio_gpu_resource_flush: bytes; the rectangle is at [`RECT`].
pub const FLUSH_SIZE: usize = 48;
/// Flush: resource id, u32.
pub const FLUSH_RESOURCE: usize = 40;

/// struct virtio_gpu_transfer_to_host_2d: bytes; the rectangle is at
/// [`RECT`].
pub const TRANSFER_SIZE: usize = 56;
/// Transfer: byte of the backing where the rectangle starts, u64.
pub const TRANSFER_OFFSET: usize = 40;
/// Transfer: resource id, u32.
pub const TRANSFER_RESOURCE: usize = 48;

/// struct virtio_gpu_resource_attach_backing: bytes before the entries.
pub const ATTACH_SIZE: usize = 32;
/// Attach: resource id, u32.
pub const ATTACH_RESOURCE: usize = 24;
/// Attach: number of entries, u32.
pub const ATTACH_ENTRIES: usize = 28;
/// struct virtio_gpu_mem_entry: bytes: address u64, length u32, padding.
pub const ENTRY_SIZE: usize = 16;

/// struct virtio_gpu_update_cursor: bytes.
pub const CURSOR_SIZE: usize = 56;
/// Cursor: scanout id, u32.
pub const CURSOR_SCANOUT: usize = 24;
/// Cursor: x, u32.
pub const CURSOR_X: usize = 28;
/// Cursor: y, u32.
pub const CURSOR_Y: usize = 32;
/// Cursor: resource id, u32.
pub const CURSOR_RESOURCE: usize = 40;
/// Cursor: x of the hot spot in the image, u32.
pub const CURSOR_HOT_X: usize = 44;
/// Cursor: y of the hot spot in the image, u32.
pub const CURSOR_HOT_Y: usize = 48;

/// struct virtio_gpu_get_edid: bytes.
pub const GET_EDID_SIZE: usize = 32;
/// Get EDID: scanout id, u32.
pub const GET_EDID_SCANOUT: usize = 24;
/// struct virtio_gpu_resp_edid: room for the EDID after header, size u32 and
/// padding u32.
pub const EDID_ROOM: usize = 1024;

/// struct virtio_gpu_resource_create_blob: bytes before the entries; the
/// resource id is at [`RESOURCE_ID`].
pub const BLOB_SIZE: usize = 56;
/// Create blob: where its memory is, u32.
pub const BLOB_MEM: usize = 28;
/// Create blob: flags, u32.
pub const BLOB_FLAGS: usize = 32;
/// Create blob: number of entries, u32.
pub const BLOB_ENTRIES: usize = 36;
/// Create blob: bytes of the blob, u64 (before it blob_id, of 3D contexts).
pub const BLOB_BYTES: usize = 48;

/// struct virtio_gpu_set_scanout_blob: bytes; the rectangle, scanout id and
/// resource id are where [`SCANOUT_SIZE`]'s are.
pub const SCANOUT_BLOB_SIZE: usize = 96;
/// Set scanout blob: width, u32.
pub const SCANOUT_BLOB_WIDTH: usize = 48;
/// Set scanout blob: height, u32.
pub const SCANOUT_BLOB_HEIGHT: usize = 52;
/// Set scanout blob: format, u32.
pub const SCANOUT_BLOB_FORMAT: usize = 56;
/// Set scanout blob: bytes a row, u32; the first of four planes.
pub const SCANOUT_BLOB_STRIDE: usize = 64;
/// Set scanout blob: where the first pixel is, u32; the first of four planes.
pub const SCANOUT_BLOB_OFFSET: usize = 80;

/// struct virtio_gpu_resource_map_blob: bytes.
pub const MAP_BLOB_SIZE: usize = 40;

/// struct virtio_gpu_display_one: bytes: rectangle, enabled, flags.
pub const DISPLAY_SIZE: usize = 24;
