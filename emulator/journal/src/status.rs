//! NTSTATUS values by name (ntstatus.h; public constants).

/// Those that a driver meets or commonly returns, by value.
const NAMES: &[(u32, &str)] = &[
    (0x0000_0000, "STATUS_SUCCESS"),
    (0x0000_0080, "STATUS_ABANDONED"),
    (0x0000_0102, "STATUS_TIMEOUT"),
    (0x0000_0103, "STATUS_PENDING"),
    (0x8000_0005, "STATUS_BUFFER_OVERFLOW"),
    (0x8000_0011, "STATUS_DEVICE_BUSY"),
    (0xC000_0001, "STATUS_UNSUCCESSFUL"),
    (0xC000_0002, "STATUS_NOT_IMPLEMENTED"),
    (0xC000_0005, "STATUS_ACCESS_VIOLATION"),
    (0xC000_0008, "STATUS_INVALID_HANDLE"),
    (0xC000_000D, "STATUS_INVALID_PARAMETER"),
    (0xC000_000E, "STATUS_NO_SUCH_DEVICE"),
    (0xC000_0010, "STATUS_INVALID_DEVICE_REQUEST"),
    (0xC000_0017, "STATUS_NO_MEMORY"),
    (0xC000_0019, "STATUS_NOT_MAPPED_VIEW"),
    (0xC000_0022, "STATUS_ACCESS_DENIED"),
    (0xC000_0023, "STATUS_BUFFER_TOO_SMALL"),
    (0xC000_0034, "STATUS_OBJECT_NAME_NOT_FOUND"),
    (0xC000_0043, "STATUS_SHARING_VIOLATION"),
    (0xC000_0045, "STATUS_INVALID_PAGE_PROTECTION"),
    (0xC000_0056, "STATUS_DELETE_PENDING"),
    (0xC000_0059, "STATUS_REVISION_MISMATCH"),
    (0xC000_009A, "STATUS_INSUFFICIENT_RESOURCES"),
    (0xC000_009D, "STATUS_DEVICE_NOT_CONNECTED"),
    (0xC000_00A3, "STATUS_DEVICE_NOT_READY"),
    (0xC000_00B5, "STATUS_IO_TIMEOUT"),
    (0xC000_00BB, "STATUS_NOT_SUPPORTED"),
    (0xC000_00EF, "STATUS_INVALID_PARAMETER_1"),
    (0xC000_00F0, "STATUS_INVALID_PARAMETER_2"),
    (0xC000_00F3, "STATUS_INVALID_PARAMETER_5"),
    (0xC000_010E, "STATUS_IMAGE_ALREADY_LOADED"),
    (0xC000_0120, "STATUS_CANCELLED"),
    (0xC000_0182, "STATUS_DEVICE_CONFIGURATION_ERROR"),
    (0xC000_0184, "STATUS_INVALID_DEVICE_STATE"),
    (0xC000_0185, "STATUS_IO_DEVICE_ERROR"),
    (0xC000_0206, "STATUS_INVALID_BUFFER_SIZE"),
    (0xC000_0225, "STATUS_NOT_FOUND"),
    (0xC000_0263, "STATUS_DRIVER_ENTRYPOINT_NOT_FOUND"),
    (0xC000_02B6, "STATUS_DEVICE_REMOVED"),
    (0xC000_0365, "STATUS_FAILED_DRIVER_ENTRY"),
    (0xC01E_0002, "STATUS_GRAPHICS_ADAPTER_WAS_RESET"),
    (0xC01E_0100, "STATUS_GRAPHICS_NO_VIDEO_MEMORY"),
];

/// The name of an NTSTATUS, if it is one that a driver commonly meets.
#[must_use]
pub fn status_name(status: u32) -> Option<&'static str> {
    let at = NAMES.binary_search_by_key(&status, |row| row.0).ok()?;
    NAMES.get(at).map(|row| row.1)
}

/// The value of an NTSTATUS by its name.
#[must_use]
pub fn status_value(name: &str) -> Option<u32> {
    NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_each_others() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
        for (value, name) in NAMES {
            assert_eq!(status_name(*value), Some(*name));
            assert_eq!(status_value(name), Some(*value));
        }
        assert_eq!(status_name(0xC000_0BAD), None);
    }
}
