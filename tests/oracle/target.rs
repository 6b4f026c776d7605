//! What the script drives: memory, a register file, and two devices.

/// Bytes of RAM from address 0.
pub const RAM: u64 = 128 << 20;
/// Requester ids of the devices, 00:04.0 and 00:05.0.
pub const DEVICES: [u16; 2] = [0x20, 0x28];
/// Bytes of a device's own buffer.
pub const BUFFER: u64 = 4096;

/// Which way a device moves bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From memory into the device's buffer.
    Read,
    /// From the device's buffer to memory.
    Write,
}

/// One implementation of VT-d with the machine around it.
pub trait Target {
    /// Write 8 bytes of RAM.
    fn poke(&mut self, at: u64, value: u64);
    /// Read 8 bytes of RAM.
    fn look(&mut self, at: u64) -> u64;
    /// Set RAM to zero.
    fn clear(&mut self, at: u64, length: u64);
    /// Read a register of 4 or 8 bytes.
    fn get(&mut self, offset: u64, size: u8) -> u64;
    /// Write a register of 4 or 8 bytes.
    fn set(&mut self, offset: u64, size: u8, value: u64);
    /// Let device `device` (an index into [`DEVICES`]) move `length` bytes
    /// between `iova` and `offset` of its buffer, and wait until it is done.
    /// A device is not told whether its access was refused.
    fn dma(&mut self, device: usize, direction: Direction, iova: u64, offset: u64, length: u64);
}
