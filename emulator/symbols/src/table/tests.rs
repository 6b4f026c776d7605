#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// The magic and the page size of a multi-stream file, the container of a PDB.
fn container(page_size: u32, pages: u32, directory_bytes: u32) -> Vec<u8> {
    let mut file = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0".to_vec();
    for word in [page_size, 1, pages, directory_bytes, 0, 1] {
        file.extend(word.to_le_bytes());
    }
    file
}

#[test]
fn bytes_that_are_no_pdb_are_an_error() {
    for bytes in [&b""[..], b"MZ", &[0; 4096], &container(512, 1, 4)] {
        assert!(matches!(
            SymbolTable::from_pdb(bytes),
            Err(SymbolError::Malformed { .. })
        ));
    }
}

#[test]
fn directory_of_impossible_size_is_an_error() {
    let mut file = container(512, u32::MAX, u32::MAX - 1);
    // Every page number is 1: the directory is made of one page many times.
    while file.len() < 1 << 16 {
        file.extend(1u32.to_le_bytes());
    }
    assert!(matches!(
        SymbolTable::from_pdb(&file),
        Err(SymbolError::Malformed { .. })
    ));
}

#[test]
fn missing_file_is_an_error_that_names_it() {
    let error = SymbolTable::from_pdb_file(&PathBuf::from("absent.pdb")).unwrap_err();
    assert!(error.to_string().contains("absent.pdb"), "{error}");
}

#[test]
fn file_over_the_limit_is_an_error() {
    assert!(check_size(MAX_PDB_BYTES).is_ok());
    assert!(matches!(
        check_size(MAX_PDB_BYTES + 1),
        Err(SymbolError::TooLarge { .. })
    ));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        page_size in prop_oneof![Just(256u32), Just(512), Just(4096), any::<u32>()],
        pages in 0u32..64,
        directory in 0u32..0x800,
        rest in proptest::collection::vec(
            prop_oneof![3 => 0u32..16, 1 => any::<u32>()], 0..1024,
        ),
    ) {
        let mut file = container(page_size, pages, directory);
        file.extend(rest.iter().flat_map(|word| word.to_le_bytes()));
        prop_assert!(SymbolTable::from_pdb(&file).is_err());
    }
}
