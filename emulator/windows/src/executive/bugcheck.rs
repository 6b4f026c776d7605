//! Bug checks that the driver itself asks for.

use super::{Answer, State};
use crate::{Call, Outcome, Platform, Stop};
use journal::event::Certainty;

/// VOID KeBugCheck(ULONG Code).
pub(super) fn plain(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let code = call.argument(p, 0)? as u32;
    Ok(stop("KeBugCheck", code, [0; 4]))
}

/// VOID KeBugCheckEx(ULONG Code, ULONG_PTR, ULONG_PTR, ULONG_PTR, ULONG_PTR).
pub(super) fn with_parameters(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let code = call.argument(p, 0)? as u32;
    let mut parameters = [0; 4];
    for (index, parameter) in parameters.iter_mut().enumerate() {
        *parameter = call.argument(p, index + 1)?;
    }
    Ok(stop("KeBugCheckEx", code, parameters))
}

fn stop(name: &str, code: u32, parameters: [u64; 4]) -> Outcome {
    Outcome::Stop(Stop {
        code,
        parameters,
        certainty: Certainty::Documented,
        reason: format!("the driver itself called {name}"),
        rule: None,
        subject: Default::default(),
        go_on: None,
    })
}
