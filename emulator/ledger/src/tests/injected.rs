//! Which injection a finding is said to follow from.

use super::*;
use crate::Party;

impl Run {
    fn injected(self, name: &str, site: &str) -> Self {
        self.then(Event::Injected {
            fault: 0,
            name: name.into(),
            site: site.into(),
            outcome: "drop".into(),
        })
    }

    /// A stale access after what was injected.
    fn then_stale(self) -> Finding {
        let run = self.unmap(ADDRESS).returned().done(1, ADDRESS, PAGE, true);
        run.findings().remove(0)
    }
}

fn named(finding: &Finding) -> &str {
    assert_eq!(finding.blame[0].party, Party::Injected);
    &finding.blame[0].reason
}

#[test]
fn the_injection_that_concerns_the_address_is_named() {
    let finding = Run::isolated()
        .used()
        .injected(
            "this",
            &format!("descriptor iotlb {ADDRESS:#x}-{:#x}", ADDRESS | 0xfff),
        )
        .injected("another", "descriptor iotlb 0x5000-0x5fff")
        .then_stale();

    let reason = named(&finding);
    assert!(reason.contains("\"this\""), "{reason}");
    assert!(!reason.contains("latest"), "{reason}");
}

#[test]
fn of_several_that_concern_it_the_latest_is_named() {
    let finding = Run::isolated()
        .used()
        .injected("first", &format!("unmap Free {ADDRESS:#x}"))
        .injected("second", &format!("unmap Free {ADDRESS:#x}"))
        .then_stale();

    assert!(named(&finding).contains("\"second\""));
}

#[test]
fn one_that_names_no_address_may_concern_all() {
    let finding = Run::isolated()
        .used()
        .injected("all", "descriptor Free iotlb")
        .injected("another", "descriptor iotlb 0x5000-0x5fff")
        .then_stale();

    let reason = named(&finding);
    assert!(
        reason.contains("\"all\"") && !reason.contains("latest"),
        "{reason}"
    );
}

#[test]
fn where_none_is_known_to_concern_it_the_latest_is_named_as_that() {
    let finding = Run::isolated()
        .used()
        .injected("old", "descriptor iotlb 0x5000-0x5fff")
        .injected("new", "descriptor iotlb 0x9000-0x9fff")
        .then_stale();

    let reason = named(&finding);
    assert!(reason.contains("\"new\""), "{reason}");
    assert!(
        reason.contains("the latest injection: none is known"),
        "{reason}"
    );
}
