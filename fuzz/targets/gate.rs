//! What a CI job gives: suppressions and baselines. What is said of a bad one
//! goes to a terminal or a log.
#![no_main]

use report::{Baseline, parse_suppressions};

fn said(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(!text.is_empty());
    assert!(
        !text.chars().any(char::is_control),
        "a control character: {text:?}"
    );
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(error) = Baseline::parse(data) {
        said(&error);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match parse_suppressions(text) {
        Ok(rules) => {
            let lines = text.lines().count();
            assert!(rules.iter().all(|rule| (1..=lines).contains(&rule.line)));
        }
        Err(error) => said(&error),
    }
});
