//! Suppressions: findings that a project knows of and lives with for a while.

use crate::clean::clean_short;
use crate::model::Found;
use ledger::Kind;
use serde::Deserialize;
use std::fmt;
use thiserror::Error;
use toml::Spanned;

/// Suppressions in a file.
const MAX_RULES: usize = 1024;
/// Characters of a function's pattern.
const MAX_PATTERN: usize = 400;
/// Characters of a reason.
const MAX_REASON: usize = 400;

/// Where a suppressions file is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {why}")]
pub struct SuppressionsError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what to write.
    pub why: String,
}

/// One suppression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// What is found.
    pub kind: Kind,
    /// A function on one of its stacks: `*` stands for any text, `?`
    /// for any one character.
    pub function: String,
    /// Why it may be.
    pub reason: String,
    /// Line in the file, from 1.
    pub line: usize,
}

impl fmt::Display for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            function,
            line,
            ..
        } = self;
        write!(f, "{} in {function} (line {line})", kind.id())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    suppress: Vec<Spanned<Rule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    finding: Spanned<String>,
    function: Spanned<String>,
    reason: Spanned<String>,
}

/// Line and column, both from 1, of byte `at`.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before: String = text
        .char_indices()
        .take_while(|(index, _)| *index < at)
        .map(|(_, character)| character)
        .collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// Read a suppressions file: `[[suppress]]` tables with `finding`, `function`
/// and `reason`, all three wanted.
///
/// # Errors
/// If the text is no TOML, has other fields, or names a finding that there is
/// not; with the place.
pub fn parse(text: &str) -> Result<Vec<Suppression>, SuppressionsError> {
    let wrong = |at: usize, why: String| {
        let (line, column) = place(text, at);
        SuppressionsError { line, column, why }
    };
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        wrong(at, clean_short(error.message().trim(), MAX_REASON))
    })?;
    if let Some(rule) = file.suppress.get(MAX_RULES) {
        let why = format!("more than {MAX_RULES} suppressions: merge them with patterns");
        return Err(wrong(rule.span().start, why));
    }
    let mut rules = Vec::new();
    for rule in &file.suppress {
        let table = place(text, rule.span().start).0;
        let Rule {
            finding,
            function,
            reason,
        } = rule.get_ref();
        let id = finding.get_ref();
        let Some(kind) = Kind::find(id) else {
            let why = format!(
                "there is no finding {:?}: dmasan explain lists them",
                clean_short(id, MAX_PATTERN)
            );
            return Err(wrong(finding.span().start, why));
        };
        let pattern = function.get_ref().trim();
        if pattern.is_empty() || pattern.chars().count() > MAX_PATTERN {
            let why =
                format!("function wants a name or a pattern of at most {MAX_PATTERN} characters");
            return Err(wrong(function.span().start, why));
        }
        if reason.get_ref().trim().is_empty() {
            let why = "reason is empty: say why this finding may be".to_owned();
            return Err(wrong(reason.span().start, why));
        }
        rules.push(Suppression {
            kind,
            function: clean_short(pattern, MAX_PATTERN),
            reason: clean_short(reason.get_ref().trim(), MAX_REASON),
            line: table,
        });
    }
    Ok(rules)
}

impl Suppression {
    /// Does it speak of this finding?
    pub(crate) fn covers(&self, found: &Found) -> bool {
        self.kind == found.finding.kind
            && [&found.used, &found.freed, &found.allocated]
                .into_iter()
                .flatten()
                .filter_map(|frame| frame.function.as_deref())
                .any(|function| matches(&self.function, function))
    }
}

/// Does `pattern` match the whole of `text`? In time of at most the product
/// of their lengths: only the last star is ever gone back to.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(character) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == character => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else {
                    return false;
                };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let rows = [
            ("free", "free", true),
            ("free", "free_pages", false),
            ("free*", "free_pages", true),
            ("*::free", "a::b::free", true),
            ("*::free", "a::b::freed", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("*", "", true),
            ("?", "", false),
            ("Queue::submit<?>", "Queue::submit<2>", true),
            ("größe", "größe", true),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(matches(pattern, text), expected, "{pattern} and {text}");
        }
    }

    #[test]
    fn many_stars_end_soon() {
        assert!(!matches(
            &"a*".repeat(200),
            &"a".repeat(398).replace("aa", "ab")
        ));
        assert!(!matches(
            &format!("{}b", "*a".repeat(150)),
            &"a".repeat(400)
        ));
    }

    #[test]
    fn file_gives_its_rules_with_their_lines() {
        let rules = parse(
            "# known\n\n[[suppress]]\nfinding = \"stale-iotlb\"\nfunction = \"*::free\"\n\
             reason = \"ticket 4711\"\n",
        )
        .unwrap();

        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].to_string(), "stale-iotlb in *::free (line 3)");
        assert_eq!(rules[0].reason, "ticket 4711");
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn bad_file_is_refused_with_line_and_column() {
        let rule = |finding: &str, function: &str, rest: &str| {
            format!("[[suppress]]\nfinding = \"{finding}\"\nfunction = \"{function}\"\n{rest}")
        };
        let rows = [
            (rule("stale-iotlb", "f", ""), 1, 1, "reason"),
            (
                rule("stale-iotlb", "f", "reason = \" \""),
                4,
                10,
                "reason is empty",
            ),
            (
                rule("stale-tlb", "f", "reason = \"r\""),
                2,
                11,
                "no finding \"stale-tlb\"",
            ),
            (
                rule("stale-iotlb", "", "reason = \"r\""),
                3,
                12,
                "function wants",
            ),
            (
                rule("stale-iotlb", "f", "reason = \"r\"\nline = 3"),
                5,
                1,
                "unknown field",
            ),
            ("[[suppress]]\nfinding = = 3".to_owned(), 2, 11, ""),
            ("supress = 3".to_owned(), 1, 1, "unknown field"),
        ];
        for (text, line, column, says) in rows {
            let error = parse(&text).unwrap_err();
            assert_eq!(
                (error.line, error.column),
                (line, column),
                "{text}: {error}"
            );
            assert!(error.why.contains(says), "{error}");
        }
    }
}
