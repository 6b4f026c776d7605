//! The `dmasan` binary: the command line, progress and exit codes.
#![forbid(unsafe_code)]

mod args;
mod audit;
mod doctor;
mod error;
mod explain;
mod explore;
mod faults;
mod files;
mod fuzz;
mod gate;
mod lint;
mod logging;
mod qemu;
mod reproduce;
mod rules;
mod run;
mod search;
mod show;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    logging::init();
    // Bad usage exits with 2 by itself.
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Explore(arguments) => explore::explore(arguments),
        Command::Fuzz(arguments) => fuzz::fuzz(arguments),
        Command::Merge(arguments) => explore::merge(arguments),
        Command::Report(arguments) => show::report(arguments),
        Command::Replay(arguments) => show::replay(arguments),
        Command::Lint(arguments) => lint::lint(arguments),
        Command::Rules { id } => rules::rules(id.as_deref()),
        Command::Explain { id } => explain::explain(id.as_deref()),
        Command::Qemu(arguments) => qemu::qemu(arguments),
        Command::Ctl(arguments) => qemu::ctl(arguments),
        Command::Scenario { command } => faults::scenario(command),
        Command::Audit(arguments) => audit::audit(arguments),
        Command::Doctor => doctor::doctor(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("dmasan: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
