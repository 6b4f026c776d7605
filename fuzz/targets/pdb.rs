//! PDBs, and lookups in what was read.
//!
//! The symbols crate catches the panics of pdb2, which has some. libfuzzer-sys
//! aborts in the panic hook, before anything can be caught; the hook set here
//! replaces that one. It lets panics of libraries pass (one that is not caught
//! still ends the run) and aborts at those of our own code, caught or not.
#![no_main]

use std::panic;
use std::process;
use symbols::SymbolTable;

/// Lookups of one table.
const LOOKUPS: u32 = 64;

fn prepare() {
    panic::set_hook(Box::new(|what| {
        let place = what.location().map_or("", |place| place.file());
        let library = place.contains("/registry/") || place.contains("/library/");
        if !library {
            eprintln!("{what}");
            process::abort();
        }
    }));
}

libfuzzer_sys::fuzz_target!(init: prepare(), |data: &[u8]| {
    let Ok(table) = SymbolTable::from_pdb(data) else {
        return;
    };
    let step = u32::MAX / LOOKUPS;
    for near in 0..LOOKUPS {
        for rva in [near * step, 0x1000 + near * 16] {
            for frame in table.lookup(rva).iter().chain(&table.lookup_return(rva)) {
                assert!(!frame.to_string().is_empty());
                let _ = table.address_of(&frame.function);
            }
        }
    }
});
