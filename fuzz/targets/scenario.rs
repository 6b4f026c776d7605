//! Scenario files: TOML, limits, the workload's own rules.
#![no_main]

use scenario::{MAX_FRAME_SIDE, MAX_WORKLOAD, Plan, Step};

libfuzzer_sys::fuzz_target!(|text: &str| match Plan::parse(text) {
    Ok(plan) => {
        let again = Plan::parse(&plan.to_toml());
        assert!(
            again.is_ok_and(|again| again == plan),
            "another when written and read"
        );
        assert!(plan.workload.len() <= MAX_WORKLOAD);
        assert!(plan.workload.iter().all(|step| !matches!(
            step,
            Step::Create { width, height, .. } if *width.max(height) > MAX_FRAME_SIDE
        )));
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
