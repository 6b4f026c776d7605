//! virtio-gpu: rings, commands, BARs and configuration space of any content,
//! with and without translation.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    gpu::fuzzing::fuzz(data);
});
