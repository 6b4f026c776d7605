//! `dmasan explain`.

use crate::error::CliError;

/// Every finding and its page, as it stands in `docs/findings`.
const PAGES: &[(&str, &str)] = &[
    (
        "dma-use-after-free",
        include_str!("../../../docs/findings/dma-use-after-free.md"),
    ),
    (
        "dma-unmapped",
        include_str!("../../../docs/findings/dma-unmapped.md"),
    ),
    (
        "dma-permission",
        include_str!("../../../docs/findings/dma-permission.md"),
    ),
    (
        "free-in-flight",
        include_str!("../../../docs/findings/free-in-flight.md"),
    ),
    (
        "mapped-after-free",
        include_str!("../../../docs/findings/mapped-after-free.md"),
    ),
    (
        "stale-iotlb",
        include_str!("../../../docs/findings/stale-iotlb.md"),
    ),
];

/// Print the page of a finding, or the list of findings.
pub fn explain(id: Option<&str>) -> Result<u8, CliError> {
    let Some(id) = id else {
        for (known, _) in PAGES {
            println!("{known}");
        }
        return Ok(0);
    };
    let page = PAGES.iter().find(|(known, _)| *known == id);
    let (_, text) = page.ok_or_else(|| CliError::NoSuchFinding(id.to_owned()))?;
    print!("{text}");
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Kind;

    /// A finding that the ledger can make and nobody explains is a dead end
    /// for whoever gets it.
    #[test]
    fn every_finding_has_a_page_that_begins_with_its_name() {
        for kind in Kind::ALL {
            let page = PAGES.iter().find(|(id, _)| *id == kind.id());
            let (id, text) = page.unwrap_or_else(|| panic!("{} has no page", kind.id()));
            assert!(text.starts_with(&format!("# {id}\n")), "{id}");
        }
        assert_eq!(PAGES.len(), Kind::ALL.len());
    }
}
