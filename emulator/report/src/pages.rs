//! What each finding means: `docs/findings`, for `dmasan explain` and for
//! programs that show rules.

/// Makes [`PAGES`].
macro_rules! pages {
    ($($id:literal,)*) => {
        /// Every finding's identifier and its page, in Markdown.
        pub const PAGES: &[(&str, &str)] = &[
            $(($id, include_str!(concat!("../../../docs/findings/", $id, ".md"))),)*
        ];
    };
}

pages! {
    "dma-use-after-free",
    "dma-unmapped",
    "dma-permission",
    "dma-raw-physical-address",
    "dma-reused-memory",
    "dma-interrupt-range",
    "stale-iotlb",
    "missing-invalidation",
    "mapped-after-free",
    "free-in-flight",
    "cpu-use-after-free",
    "double-free",
    "foreign-mdl",
    "mdl-not-released",
    "memory-leak",
    "mdl-use-after-free",
    "partial-allocation-ignored",
    "wrong-irql",
    "handle-leak",
    "exclusive-access-violation",
    "import-forbidden",
    "hang",
}

/// The first paragraph of a finding's page: what it is, in a sentence.
pub(crate) fn short(id: &str) -> &'static str {
    page(id)
        .and_then(|page| page.split("\n\n").nth(1))
        .map_or("", str::trim)
}

/// The whole page without its title.
pub(crate) fn body(id: &str) -> &'static str {
    page(id)
        .and_then(|page| page.split_once("\n\n"))
        .map_or("", |(_, body)| body.trim())
}

fn page(id: &str) -> Option<&'static str> {
    let page = PAGES.iter().find(|(known, _)| *known == id);
    page.map(|(_, page)| *page)
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
            let id = kind.id();
            let text = page(id).unwrap_or_else(|| panic!("{id} has no page"));
            assert!(text.starts_with(&format!("# {id}\n")), "{id}");
            assert!(short(id).ends_with('.'), "{id}: {}", short(id));
            assert!(body(id).contains("How to mend it"), "{id}");
        }
        assert_eq!(PAGES.len(), Kind::ALL.len());
    }
}
