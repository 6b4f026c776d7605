//! virtio-iommu: requests of any content, accesses between them, accesses in
//! flight.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iommu::fuzzing::fuzz_requests(data));
