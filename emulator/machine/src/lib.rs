//! The driver's machine: a small KVM virtual machine that runs a Windows
//! driver's code at CPL 3.

pub mod vm;
