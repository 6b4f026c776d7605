use crate::mm::SERVICES;
use crate::mm::rules::{IRQL_RULES, irql};

#[test]
fn services_are_sorted_and_named_once() {
    let names: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
}

#[test]
fn each_rule_allows_its_limit_and_stops_above() {
    for rule in IRQL_RULES {
        assert_eq!(irql(rule.routine, rule.highest, [0; 3]), Ok(()));
        assert!(
            irql(rule.routine, rule.highest + 1, [0; 3]).is_err(),
            "{rule:?}"
        );
    }
}
