//! What a finding about a broken rule shows beyond one about an access.

use super::finding::{allocation_words, certainty, more_words};
use super::{Page, Tone};
use journal::status_name;
use ledger::{BreachFacts, Finding, Kind};

pub(crate) fn draw(page: &mut Page, finding: &Finding, facts: &BreachFacts) {
    if !facts.reason.is_empty() {
        page.row("what", Tone::Plain, &facts.reason);
    }
    if let Some(rule) = &facts.rule {
        let text = format!("{rule} (dmasan rules {rule})");
        page.row("rule", Tone::Plain, &text);
    }
    if facts.address != 0 {
        let text = format!("{:#x}, as the driver knows it", facts.address);
        page.row("about", Tone::Plain, &text);
    }
    if let Some(allocation) = &finding.allocation {
        let text = allocation_words(allocation) + &more_words(finding);
        page.row("memory", Tone::Plain, &text);
    }
}

/// What the stack of the breach is.
pub(crate) fn place_words(kind: Kind) -> &'static str {
    match kind {
        Kind::DoubleFree => "freed again here",
        Kind::Hang => "the driver was here",
        Kind::CpuUseAfterFree => "used here",
        Kind::HandleLeak | Kind::MdlNotReleased | Kind::MemoryLeak | Kind::ImportForbidden => {
            "found out here"
        }
        _ => "the rule was broken here",
    }
}

/// What Windows does, where it does not stop.
pub(crate) fn answer(page: &mut Page, kind: Kind, facts: &BreachFacts) {
    let text = match (facts.status, kind) {
        (Some(status), _) => {
            let name = status_name(status).map_or(String::new(), |name| format!(" ({name})"));
            format!("goes on; the routine returns {status:#010x}{name}")
        }
        (None, Kind::Hang) => {
            "a thread of the system never comes back: the desktop freezes, and a display driver's \
             watchdog (TDR) may reset the adapter or stop Windows"
                .to_owned()
        }
        (None, Kind::HandleLeak) => "takes back what it can; says nothing".to_owned(),
        (None, Kind::MdlNotReleased | Kind::MemoryLeak) => {
            "says nothing, and the memory is lost until the next boot; Driver Verifier's pool \
             tracking stops with 0xC4 (0x62) where it is pool"
                .to_owned()
        }
        (None, _) => "does not notice: no status, no bug check".to_owned(),
    };
    page.row("Windows", Tone::Warn, &text);
    page.row("", Tone::Faint, certainty(facts.certainty));
}
