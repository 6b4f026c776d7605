//! Who may call what at which IRQL, and what Windows does on a breach.

use super::spec::{APC_LEVEL, DISPATCH_LEVEL};
use crate::call::{Outcome, Stop};
use journal::event::Certainty;

/// One rule: above `highest` Windows stops with `code` and, as first
/// parameter, `sub_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqlRule {
    /// The routine.
    pub routine: &'static str,
    /// The highest IRQL it may be called at.
    pub highest: u8,
    /// Bug check.
    pub code: u32,
    /// Its first parameter.
    pub sub_code: u64,
    /// How sure we are.
    pub certainty: Certainty,
    /// Where it is written.
    pub source: &'static str,
}

const fn row(
    routine: &'static str,
    highest: u8,
    (code, sub_code): (u32, u64),
    certainty: Certainty,
    source: &'static str,
) -> IrqlRule {
    IrqlRule {
        routine,
        highest,
        code,
        sub_code,
        certainty,
        source,
    }
}

const BUG_C4: &str = "bug check 0xC4, table of violations";
const BUG_C2: &str = "bug check 0xC2, table of causes";
const PAGE: &str = "the routine's page, IRQL line; the code is IRQL_NOT_LESS_OR_EQUAL's";

/// The rules. Where the page of `MmFreePagesFromMdl` allows DISPATCH_LEVEL
/// and the rule IrqlMmApcLte does not, the page is followed.
pub const IRQL_RULES: &[IrqlRule] = {
    use Certainty::{Documented, Inferred};
    const D: u8 = DISPATCH_LEVEL;
    &[
        row("MmAllocatePagesForMdl", D, (0xc4, 0x7e), Documented, BUG_C4),
        row(
            "MmAllocatePagesForMdlEx",
            D,
            (0xc4, 0x7e),
            Documented,
            BUG_C4,
        ),
        row("MmFreePagesFromMdl", D, (0xc4, 0x7e), Documented, BUG_C4),
        row(
            "MmMapLockedPagesSpecifyCache",
            D,
            (0xc4, 0x76),
            Documented,
            BUG_C4,
        ),
        row("MmUnmapLockedPages", D, (0xc4, 0x79), Documented, BUG_C4),
        row("MmProbeAndLockPages", D, (0xc4, 0x70), Documented, BUG_C4),
        row("MmUnlockPages", D, (0xc4, 0x78), Documented, BUG_C4),
        row("ExAllocatePoolWithTag", D, (0xc2, 0x08), Inferred, BUG_C2),
        row("ExAllocatePool2", D, (0xc2, 0x08), Inferred, BUG_C2),
        row("ExFreePoolWithTag", D, (0xc2, 0x09), Documented, BUG_C2),
        row("ExFreePool", D, (0xc2, 0x09), Documented, BUG_C2),
        row("MmAllocateContiguousMemory", D, (0x0a, 0), Inferred, PAGE),
        row(
            "MmAllocateContiguousMemorySpecifyCache",
            D,
            (0x0a, 0),
            Inferred,
            PAGE,
        ),
        row("MmFreeContiguousMemory", D, (0x0a, 0), Inferred, PAGE),
        row("IoAllocateMdl", D, (0x0a, 0), Inferred, PAGE),
        row("IoFreeMdl", D, (0x0a, 0), Inferred, PAGE),
        row("MmMapIoSpace", D, (0x0a, 0), Inferred, PAGE),
        row("MmUnmapIoSpace", D, (0x0a, 0), Inferred, PAGE),
        // Mapping into a process, and paged pool, sleep.
        row(
            "user mapping of an MDL",
            APC_LEVEL,
            (0xc4, 0x77),
            Documented,
            BUG_C4,
        ),
        row("paged pool", APC_LEVEL, (0xc2, 0x08), Inferred, BUG_C2),
    ]
};

/// Check the rule of `routine`. `parameters` are the bug check's second to
/// fourth.
///
/// # Errors
/// The stop, as an [`Outcome`] to return.
pub fn irql(routine: &str, irql: u8, parameters: [u64; 3]) -> Result<(), Outcome> {
    match IRQL_RULES.iter().find(|rule| rule.routine == routine) {
        Some(rule) if irql > rule.highest => Err(Outcome::Stop(Stop {
            code: rule.code,
            parameters: [rule.sub_code, parameters[0], parameters[1], parameters[2]],
            certainty: rule.certainty,
            reason: format!(
                "{routine} at IRQL {irql}, allowed up to {} ({})",
                rule.highest, rule.source
            ),
            go_on: Some(0),
        })),
        _ => Ok(()),
    }
}

/// A stop after which the call can return `go_on`.
pub(super) fn stop(
    code: u32,
    parameters: [u64; 4],
    certainty: Certainty,
    go_on: u64,
    reason: String,
) -> Stop {
    Stop {
        code,
        parameters,
        certainty,
        reason,
        go_on: Some(go_on),
    }
}
