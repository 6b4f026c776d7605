//! Names as a person wants to read them.

/// The readable form of a linker's symbol name.
///
/// Rust names of both manglings (legacy `_ZN…E` and v0 `_R…`) are demangled,
/// without the hash of the compilation. Any other name comes back as it was.
#[must_use]
pub fn demangle(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        // The alternate form drops the hash.
        Ok(demangled) => format!("{demangled:#}"),
        Err(_) => name.to_owned(),
    }
}

/// True if `name` is a mangled Rust name.
pub(crate) fn is_rust_mangled(name: &str) -> bool {
    rustc_demangle::try_demangle(name).is_ok()
}

/// True if a CodeView name has a part that rustc made up because CodeView has
/// no form for it: `impl$0` for a trait implementation, `closure$0`, `tuple$<…>`.
pub(crate) fn is_made_up(name: &str) -> bool {
    name.contains('$')
}

/// The last component of a path written on Windows or Unix.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_names_are_demangled_without_hash() {
        let rows = [
            (
                "_ZN9dmasangpu8resource4free17h0123456789abcdefE",
                "dmasangpu::resource::free",
            ),
            (
                "_ZN55_$LT$dmasan..Table$u20$as$u20$core..ops..drop..Drop$GT$4drop17h0123456789abcdefE",
                "<dmasan::Table as core::ops::drop::Drop>::drop",
            ),
            (
                "_RNvNtCs1234_9dmasangpu8resource4free",
                "dmasangpu::resource::free",
            ),
        ];
        for (mangled, readable) in rows {
            assert_eq!(demangle(mangled), readable);
            assert!(is_rust_mangled(mangled));
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            "DriverEntry",
            "?Free@Resource@@QEAAXXZ",
            "core::ptr::read<u32>",
            "",
            "_",
        ] {
            assert_eq!(demangle(name), name);
            assert!(!is_rust_mangled(name));
        }
    }

    #[test]
    fn file_name_is_last_component_of_either_kind_of_path() {
        let rows = [
            (r"C:\build\dmasan-gpu.pdb", "dmasan-gpu.pdb"),
            ("/build/dmasan-gpu.pdb", "dmasan-gpu.pdb"),
            (r"C:\build/mixed\a.pdb", "a.pdb"),
            ("plain.pdb", "plain.pdb"),
            (r"ends\", ""),
            ("", ""),
        ];
        for (path, name) in rows {
            assert_eq!(file_name(path), name, "{path}");
        }
    }
}
