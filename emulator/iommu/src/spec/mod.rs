//! What the specifications say: Intel Virtualization Technology for Directed
//! I/O, rev. 4.1 (section numbers are its), and virtio 1.2. Data only.

pub mod descriptors;
pub mod registers;
pub mod tables;
pub mod virtio;
