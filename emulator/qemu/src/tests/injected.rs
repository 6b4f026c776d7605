//! Scenarios of guests.

use crate::check_plan;
use scenario::{Plan, PlanError};

fn checked(text: &str, ours: bool) -> Result<(), PlanError> {
    check_plan(&Plan::parse(text).unwrap(), ours)
}

#[test]
fn faults_of_the_device_can_be_injected_behind_any_iommu() {
    for fault in [
        "at = \"access\"\ndo = \"torn\"",
        "at = \"interrupt\"\ndo = \"lost\"",
        "at = \"queue\"\ndo = \"device-reset\"",
    ] {
        let text = format!("seed = 3\n[[fault]]\n{fault}\n[verify]\nfindings = []");
        for ours in [false, true] {
            checked(&text, ours).unwrap();
        }
    }
}

#[test]
fn faults_of_the_iommu_can_be_injected_where_it_is_ours() {
    for fault in [
        "at = \"map\"\ndo = \"fail\"",
        "at = \"unmap\"\ndo = \"fail\"",
        "at = \"attach\"\ndo = \"fail\"",
        "at = \"entry\"\ndo = \"not-present\"",
        "at = \"descriptor\"\ndo = \"drop\"\ndescriptor = \"iotlb\"",
        "at = \"fault-record\"\ndo = \"overflow\"",
    ] {
        let text = format!("[[fault]]\n{fault}");
        checked(&text, true).unwrap();
        let refused = checked(&text, false).unwrap_err().to_string();
        assert!(refused.contains("our-virtio"), "{refused}");
    }
}

#[test]
fn what_a_guest_does_not_have_is_refused_in_words() {
    for (text, why) in [
        ("order = \"lazy\"", "decides itself"),
        ("workload = []", "decides itself"),
        ("[verify]\nreleased = true", "only findings"),
        (
            "[[fault]]\nat = \"map\"\ndo = \"fail\"\nfunction = \"*\"",
            "not seen",
        ),
        (
            "[[fault]]\nat = \"access\"\ndo = \"drop\"\nafter = \"*\"",
            "not seen",
        ),
        ("[[fault]]\nat = \"fill\"\ndo = \"one-entry\"", "dmasan run"),
        ("[[fault]]\nat = \"evict\"\ndo = \"never\"", "dmasan run"),
        (
            "[[fault]]\nat = \"entry\"\ndo = \"reserved-bits\"",
            "not-present",
        ),
        (
            "[[fault]]\nat = \"fault-record\"\ndo = \"interrupt-lost\"",
            "overflow",
        ),
        (
            "[[fault]]\nat = \"descriptor\"\ndo = \"drop\"\ndescriptor = \"wait\"",
            "no other",
        ),
    ] {
        let refused = checked(text, true).unwrap_err().to_string();
        assert!(refused.contains(why), "{text}: {refused}");
    }
}
