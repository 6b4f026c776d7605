//! `dmasan doctor`.

use crate::error::CliError;
use machine::vm;

/// Check this host; 0 if `dmasan run` will work here, 3 if not.
pub fn doctor() -> Result<u8, CliError> {
    println!("dmasan {}", env!("CARGO_PKG_VERSION"));
    match vm::probe() {
        Ok(facts) => {
            let module = facts.module.as_deref().unwrap_or("of unknown kind");
            println!("KVM:     {module}, API {}", facts.api_version);
            println!(
                "host:    {}",
                if facts.nested {
                    "a virtual machine itself (exits are slow; runs are right all the same)"
                } else {
                    "bare metal"
                }
            );
            println!(
                "exit:    {:.0} us, making a machine {:.0} us{}",
                facts.exit_us,
                facts.create_us,
                if facts.sync_regs {
                    ""
                } else {
                    ", registers not shared"
                }
            );
            println!("dmasan run: ready");
            Ok(0)
        }
        Err(error) => {
            println!("dmasan run: not ready: {error}");
            Ok(3)
        }
    }
}
