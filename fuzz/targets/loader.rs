//! PE images: headers, sections, imports, exports, relocations, `.pdata`,
//! the load configuration; and what is done to an image that parses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ::windows::loader::fuzzing::loader(data));
