//! CodeView record kinds, from Microsoft's published `cvinfo.h`
//! (`SYM_ENUM_e` and `LEAF_ENUM_e`).

/// Symbol kinds that are read; see `reader` for why there is a list.
pub(super) const SYMBOL_KINDS: &[u16] = &[
    S_GPROC32,
    S_LPROC32,
    S_GPROC32_ID,
    S_LPROC32_ID,
    S_LPROC32_DPC,
    S_LPROC32_DPC_ID,
    S_THUNK32,
    S_SEPCODE,
    S_INLINESITE,
    S_INLINESITE2,
    S_PUB32,
];

const S_THUNK32: u16 = 0x1102;
const S_PUB32: u16 = 0x110e;
const S_LPROC32: u16 = 0x110f;
const S_GPROC32: u16 = 0x1110;
const S_SEPCODE: u16 = 0x1132;
const S_LPROC32_ID: u16 = 0x1146;
const S_GPROC32_ID: u16 = 0x1147;
const S_INLINESITE: u16 = 0x114d;
const S_LPROC32_DPC: u16 = 0x1155;
const S_LPROC32_DPC_ID: u16 = 0x1156;
const S_INLINESITE2: u16 = 0x115d;

/// A function identifier, with the string that is its namespace.
pub(super) const LF_FUNC_ID: u16 = 0x1601;
/// A method identifier, with the type that it belongs to.
pub(super) const LF_MFUNC_ID: u16 = 0x1602;
/// A string.
pub(super) const LF_STRING_ID: u16 = 0x1605;

/// Leaves that name a class, structure, union, enumeration or interface.
pub(super) const NAMED_TYPES: &[u16] = &[
    0x1504, // LF_CLASS
    0x1505, // LF_STRUCTURE
    0x1506, // LF_UNION
    0x1507, // LF_ENUM
    0x1519, // LF_INTERFACE
    0x1608, // LF_CLASS2
    0x1609, // LF_STRUCTURE2
    0x160a, // LF_UNION2
    0x160b, // LF_INTERFACE2
];
