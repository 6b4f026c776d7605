//! `dmasan explain`.

use crate::error::CliError;
use report::PAGES;

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
