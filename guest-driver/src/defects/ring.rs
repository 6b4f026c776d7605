//! Bugs of where the rings are.

use super::{Defect, shows};

/// Where x86 sends messages of interrupts.
const MESSAGE_ADDRESS: u64 = 0xFEE0_0000;

/// Where the device writes what it used. The planted bug takes the address
/// of the queue's interrupt message for it.
pub fn used(address: u64) -> u64 {
    if shows(Defect::RingInInterruptRange) {
        MESSAGE_ADDRESS
    } else {
        address
    }
}
