//! Text that a driver made up, made harmless.

/// Is this a character that changes how a terminal, a browser or a reader
/// sees the others: a control (C0, C1, DEL), a line or paragraph separator, a
/// direction override, an invisible one?
fn harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{ad}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{fffe}'..='\u{ffff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text on one line, harmful characters written as escapes.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => out.push(' '),
            _ if harmful(character) => out.extend(character.escape_default()),
            _ => out.push(character),
        }
    }
    out
}

/// The same, of at most `limit` characters and an ellipsis.
pub(crate) fn clean_short(text: &str, limit: usize) -> String {
    let mut short: String = text.chars().take(limit).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    clean(&short)
}
