//! `dmasan rules`.

use crate::error::CliError;
use windows::rules::rows;

/// Print the rules by which a driver is held to Windows' contract, as a
/// Markdown table; with `id`, that one alone and in full.
pub fn rules(id: Option<&str>) -> Result<u8, CliError> {
    let Some(id) = id else {
        println!("| rule | routines | says | finding | Windows | how sure | source |");
        println!("|---|---|---|---|---|---|---|");
        for row in rows() {
            let cells = [
                row.id,
                &row.routines,
                row.says,
                row.finding,
                &row.answer,
                row.certainty,
                row.source,
            ];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            println!("| {} |", cells.join(" | "));
        }
        return Ok(0);
    };
    let row = rows()
        .find(|row| row.id == id)
        .ok_or_else(|| CliError::NoSuchRule(id.to_owned()))?;
    println!("{}: {}", row.id, row.says);
    for (label, text) in [
        ("routines", row.routines.as_str()),
        ("finding", row.finding),
        ("Windows", &row.answer),
        ("how sure", row.certainty),
        ("source", row.source),
    ] {
        if !text.is_empty() {
            println!("  {label:<10} {text}");
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_bug_check_of_a_rule_has_a_name() {
        for rule in windows::rules::all() {
            if let Some(stop) = rule.bug_check {
                let name = report::bug_check_name(stop.code);
                assert!(name.is_some(), "{}: {:#x}", rule.id, stop.code);
            }
        }
    }
}
