//! What the specification says (Intel Virtualization Technology for Directed
//! I/O, rev. 4.1; section numbers are its). Data only.

pub mod descriptors;
pub mod registers;
pub mod tables;
