//! `dmasan doctor`.

use crate::error::CliError;
use machine::vm;

/// Check this host; 0 if `dmasan run` will work here, 3 if not.
pub fn doctor() -> Result<u8, CliError> {
    println!("dmasan {}", env!("CARGO_PKG_VERSION"));
    match vm::probe() {
        Ok(facts) => {
            println!("{facts}");
            println!("dmasan run: ready");
            Ok(0)
        }
        Err(error) => {
            println!("dmasan run: not ready: {error}");
            Ok(3)
        }
    }
}
