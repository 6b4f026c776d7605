use crate::mm::SERVICES;

#[test]
fn services_are_sorted_and_named_once() {
    let names: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
}
