//! vfio-user: messages of any content from a client, to the device and its
//! mirrored domain.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| qemu::fuzzing::fuzz_messages(data));
