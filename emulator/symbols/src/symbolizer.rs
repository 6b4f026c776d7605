//! Addresses of a run to text.

use std::fmt;

use crate::{Frame, SymbolTable};

/// A module as it was loaded.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its file name, such as `dmasan-gpu.sys`.
    pub name: String,
    /// The address of its first byte.
    pub base: u64,
    /// Its size in memory, in bytes.
    pub size: u64,
    /// Its symbols, if a PDB was found.
    pub symbols: Option<SymbolTable>,
}

/// An address, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The address that was asked for.
    pub address: u64,
    /// The module that it is in, if it is in any.
    pub module: Option<String>,
    /// The address relative to the module; to zero outside of all modules.
    pub rva: u64,
    /// The functions there, innermost first. Empty without symbols.
    pub frames: Vec<Frame>,
}

impl Described {
    /// One line for each frame; without symbols one with module and RVA;
    /// outside of all modules one with the address.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if !self.frames.is_empty() {
            return self.frames.iter().map(Frame::to_string).collect();
        }
        vec![match &self.module {
            Some(module) => format!("{module}+{:#x}", self.rva),
            None => format!("{:#x}", self.address),
        }]
    }
}

impl fmt::Display for Described {
    /// [`Self::lines`], a line break between them and none at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

/// The modules of a run with their symbols.
#[derive(Clone, Debug, Default)]
pub struct Symbolizer {
    /// Sorted by base. Where two overlap, the later base wins.
    modules: Vec<Module>,
    /// Prefixes of source paths that are not shown, with `/` as separator.
    hidden_prefixes: Vec<String>,
}

impl Symbolizer {
    /// A symbolizer that knows no module.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module, instead of one that has the same base.
    pub fn add_module(&mut self, module: Module) {
        match self
            .modules
            .binary_search_by_key(&module.base, |known| known.base)
        {
            Ok(place) => {
                if let Some(known) = self.modules.get_mut(place) {
                    *known = module;
                }
            }
            Err(place) => self.modules.insert(place, module),
        }
    }

    /// The modules, by base.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Leaves `prefix` (a folder) out of source paths that begin with it, so
    /// that they do not tell where the driver was built. Both kinds of path
    /// separator are the same to this.
    pub fn hide_path_prefix(&mut self, prefix: &str) {
        let mut prefix = prefix.replace('\\', "/");
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        self.hidden_prefixes.push(prefix);
    }

    /// Describes an address. With `is_return`, the address is a return address
    /// and what is described is the call before it.
    #[must_use]
    pub fn describe(&self, address: u64, is_return: bool) -> Described {
        // A call may be the last instruction of its module.
        let inside = if is_return {
            address.wrapping_sub(1)
        } else {
            address
        };
        let after = self.modules.partition_point(|module| module.base <= inside);
        let module = after
            .checked_sub(1)
            .and_then(|last| self.modules.get(last))
            .filter(|module| inside - module.base < module.size);
        let Some(module) = module else {
            return Described {
                address,
                module: None,
                rva: address,
                frames: Vec::new(),
            };
        };
        let rva = address.wrapping_sub(module.base);
        let mut frames = match (&module.symbols, u32::try_from(rva)) {
            (Some(symbols), Ok(rva)) if is_return => symbols.lookup_return(rva),
            (Some(symbols), Ok(rva)) => symbols.lookup(rva),
            _ => Vec::new(),
        };
        for frame in &mut frames {
            if let Some(file) = &mut frame.file {
                *file = self.shown_path(file);
            }
        }
        Described {
            address,
            module: Some(module.name.clone()),
            rva,
            frames,
        }
    }

    /// Describes a stack as [`Unwinder::unwind`](crate::Unwinder::unwind)
    /// gives it: the first address is an instruction, the others return
    /// addresses.
    #[must_use]
    pub fn describe_stack(&self, addresses: &[u64]) -> Vec<Described> {
        let described = |(index, &address)| self.describe(address, index != 0);
        addresses.iter().enumerate().map(described).collect()
    }

    fn shown_path(&self, path: &str) -> String {
        let unified = path.replace('\\', "/");
        if let Some(rest) = self
            .hidden_prefixes
            .iter()
            .find_map(|prefix| unified.strip_prefix(prefix.as_str()))
        {
            return rest.to_owned();
        }
        // A path with a drive letter is Windows' own; any other that a cross
        // build left has both kinds of separator.
        match unified.as_bytes() {
            [_, b':', ..] => path.to_owned(),
            _ => without_toolchain(&unified).to_owned(),
        }
    }
}

/// Rust's prebuilt libraries name their sources below
/// `/rustc/<commit>/library/`.
fn without_toolchain(path: &str) -> &str {
    path.strip_prefix("/rustc/")
        .and_then(|rest| rest.split_once("/library/"))
        .map_or(path, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_f800_1000_0000;

    fn symbolizer() -> Symbolizer {
        let mut symbolizer = Symbolizer::new();
        for (name, base, size) in [("b.sys", BASE + 0x10000, 0x1000), ("a.sys", BASE, 0x2000)] {
            symbolizer.add_module(Module {
                name: name.into(),
                base,
                size,
                symbols: None,
            });
        }
        symbolizer
    }

    fn frame(inlined: bool, file: Option<&str>, line: Option<u32>) -> Frame {
        Frame {
            function: "dmasan_gpu::resource::free".into(),
            offset: 0x4c,
            file: file.map(str::to_owned),
            line,
            inlined,
        }
    }

    #[test]
    fn frames_are_printed_with_what_is_known() {
        let rows = [
            (
                frame(false, Some("guest-driver/src/resource.rs"), Some(120)),
                "dmasan_gpu::resource::free+0x4c (guest-driver/src/resource.rs:120)",
            ),
            (
                frame(true, Some("a.rs"), Some(1)),
                "dmasan_gpu::resource::free (a.rs:1) [inlined]",
            ),
            (
                frame(false, Some("a.rs"), None),
                "dmasan_gpu::resource::free+0x4c (a.rs)",
            ),
            (frame(false, None, None), "dmasan_gpu::resource::free+0x4c"),
        ];
        for (frame, text) in rows {
            assert_eq!(frame.to_string(), text);
        }
    }

    #[test]
    fn paths_of_a_cross_build_have_one_separator_and_no_toolchain() {
        for (path, shown) in [
            ("guest-driver\\src\\gpu.rs", "guest-driver/src/gpu.rs"),
            (
                "/rustc/59807616e1fa/library\\core\\src\\ptr\\mod.rs",
                "core/src/ptr/mod.rs",
            ),
            ("C:\\driver\\gpu.c", "C:\\driver\\gpu.c"),
            ("/home/a/gpu.c", "/home/a/gpu.c"),
        ] {
            assert_eq!(symbolizer().shown_path(path), shown);
        }
    }

    #[test]
    fn address_without_symbols_is_module_and_rva() {
        let rows = [
            (BASE, "a.sys+0x0"),
            (BASE + 0x1fff, "a.sys+0x1fff"),
            (BASE + 0x2000, "0xfffff80010002000"),
            (BASE + 0x10010, "b.sys+0x10"),
            (BASE - 1, "0xfffff8000fffffff"),
            (0, "0x0"),
            (u64::MAX, "0xffffffffffffffff"),
        ];
        for (address, text) in rows {
            assert_eq!(symbolizer().describe(address, false).to_string(), text);
        }
    }

    #[test]
    fn return_address_at_end_of_module_is_of_that_module() {
        let symbolizer = symbolizer();

        assert_eq!(
            symbolizer.describe(BASE + 0x2000, true).to_string(),
            "a.sys+0x2000"
        );
        assert_eq!(symbolizer.describe(BASE, true).module, None);
    }

    #[test]
    fn only_first_address_of_a_stack_is_exact() {
        let stack = symbolizer().describe_stack(&[BASE, BASE]);

        assert_eq!(stack[0].module.as_deref(), Some("a.sys"));
        assert_eq!(stack[1].module, None);
    }

    #[test]
    fn hidden_prefix_is_left_out_of_paths() {
        let mut symbolizer = symbolizer();
        symbolizer.hide_path_prefix(r"C:\build");
        symbolizer.hide_path_prefix("/home/");

        let rows = [
            (r"C:\build\src\main.rs", "src/main.rs"),
            (r"C:\builder\main.rs", r"C:\builder\main.rs"),
            ("/home/src/main.rs", "src/main.rs"),
            ("library/core.rs", "library/core.rs"),
        ];
        for (path, shown) in rows {
            assert_eq!(symbolizer.shown_path(path), shown);
        }
    }
}
