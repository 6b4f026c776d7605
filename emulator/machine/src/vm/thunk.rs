//! Code that a driver calls to reach the host.

/// `out` to this port: a call of the import whose number is in EAX.
pub const CALL_PORT: u16 = 0xe0;
/// `out` to this port: a driver routine that the host called has returned;
/// its result is in RAX.
pub const RETURN_PORT: u16 = 0xe4;
/// The ports that code at CPL 3 may write. A 4-byte `out` covers the three
/// ports after each too.
pub(super) const PORTS: [u16; 2] = [CALL_PORT, RETURN_PORT];

/// Bytes of a thunk.
pub const THUNK_SIZE: usize = 8;

/// `mov eax, index; out CALL_PORT, eax; ret`: position-independent. It
/// destroys RAX, so that functions with an argument there need guest code
/// ([`helpers`](super::helpers)).
#[must_use]
pub fn call(index: u32) -> [u8; THUNK_SIZE] {
    let [a, b, c, d] = index.to_le_bytes();
    [0xb8, a, b, c, d, 0xe7, CALL_PORT as u8, 0xc3]
}

/// Where a routine that the host calls returns to: `out RETURN_PORT, eax`,
/// then `hlt`s, because nothing may go on from there.
#[must_use]
pub fn routine_return() -> [u8; THUNK_SIZE] {
    const HLT: u8 = 0xf4;
    [0xe7, RETURN_PORT as u8, HLT, HLT, HLT, HLT, HLT, HLT]
}

/// Thunks for `count` imports, numbered from `first`, one after another.
#[must_use]
pub fn table(first: u32, count: u32) -> Vec<u8> {
    (0..count)
        .flat_map(|offset| call(first.wrapping_add(offset)))
        .collect()
}
