//! Bounds for texts that a journal may make as long as it likes.

/// The first `limit` characters of a text, with an ellipsis if there are more.
pub(crate) fn short(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "...",
    }
}

/// A stretch of virtual time, in the unit that reads best.
#[must_use]
pub fn span(nanoseconds: u64) -> String {
    let (unit, divisor) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let thousandths = nanoseconds % divisor / (divisor / 1_000);
    format!("{}.{thousandths:03} {unit}", nanoseconds / divisor)
}
