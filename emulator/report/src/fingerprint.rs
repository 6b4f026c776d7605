//! What two runs of one defect have in common.
//!
//! Addresses, lines, times and counts change with every build or scenario.
//! What stays is what was found, by which command, and the functions and
//! files on its stacks.

use crate::layout::stack::shown;
use crate::model::{Found, Frame, Report, Stopped};

/// A fingerprint: a text that is compared whole, so that no two causes
/// collide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    /// Of what is called `id`, by `command`, with these stacks.
    pub(crate) fn new(id: &str, command: Option<&str>, stacks: &[&[Frame]]) -> Self {
        let mut key = format!("{id}\n{}", command.unwrap_or_default());
        for stack in stacks {
            key.push_str("\n-");
            // Which library functions are inlined is the compiler's mood.
            for frame in shown(stack) {
                key.push('\n');
                key.push_str(&line(frame));
            }
        }
        Self(key)
    }

    /// 16 hexadecimal digits: FNV-1a, 64 bits.
    pub(crate) fn digits(&self) -> String {
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

/// Function and file name; the file without its folder, since each checkout
/// has its own. Without symbols the offset in the image stands in: that lasts
/// for one build only, which tells too much rather than too little.
fn line(frame: &Frame) -> String {
    let module = frame.module.as_deref().unwrap_or("?");
    match &frame.function {
        Some(function) => {
            let file = frame.file.as_deref().unwrap_or_default();
            let file = file.rsplit(['/', '\\']).next().unwrap_or_default();
            format!("{module}!{function} {file}")
        }
        None if frame.module.is_some() => format!("{module}+{:#x}", frame.offset),
        None => module.to_owned(),
    }
}

/// Of a finding.
pub(crate) fn of(found: &Found) -> Fingerprint {
    let command = found.finding.command();
    Fingerprint::new(
        found.finding.kind.id(),
        command.and_then(|command| command.name.as_deref()),
        &[&found.used, &found.freed, &found.allocated],
    )
}

/// Of a bug check.
pub(crate) fn of_stop(stop: &Stopped) -> Fingerprint {
    let id = format!("bug-check {:#x}", stop.bug_check.code);
    Fingerprint::new(&id, None, &[&stop.stack])
}

impl Report {
    /// The stable fingerprint of a finding, 16 hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self, index: usize) -> Option<String> {
        Some(of(self.findings.get(index)?).digits())
    }
}
