//! The file that `scripts/bench` writes.

use crate::row::{self, Row};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What of the host the figures depend on, and nothing that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The processor's model, as it calls itself.
    pub cpu: String,
    /// Processors that the benchmarks may use.
    pub cores: usize,
    /// Is the host itself a virtual machine? Then exits are slow.
    pub nested: bool,
}

impl Host {
    /// This host. What it does not tell stays empty.
    #[must_use]
    pub fn here() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            ..Self::from_cpuinfo(&text)
        }
    }

    fn from_cpuinfo(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map_or("", |(_, value)| value.trim())
        };
        Self {
            cpu: field("model name").to_owned(),
            cores: 0,
            nested: field("flags")
                .split_whitespace()
                .any(|flag| flag == "hypervisor"),
        }
    }
}

/// All rows of one run of the benchmarks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The revision that was measured, as git describes it.
    pub revision: String,
    /// Where.
    pub host: Host,
    /// What came out.
    pub rows: Vec<Row>,
}

impl Results {
    fn head(&self) -> String {
        let Host { cpu, cores, nested } = &self.host;
        let kind = if *nested {
            "a virtual machine"
        } else {
            "bare metal"
        };
        format!("revision {}; {cpu}, {cores} cores, {kind}\n", self.revision)
    }

    fn foot(&self) -> String {
        let judged = self.rows.iter().filter(|row| row.met.is_some()).count();
        let met = self.rows.iter().filter(|row| row.met == Some(true)).count();
        format!("goals: {met} of {judged} met\n")
    }

    /// As the documentation has it.
    #[must_use]
    pub fn markdown(&self) -> String {
        let table = row::markdown(&self.rows);
        format!("{}\n{table}\n{}", self.head(), self.foot())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head())?;
        f.write_str(&row::table(&self.rows))?;
        f.write_str(&self.foot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_machine_is_nested() {
        let text = "model name\t: A CPU\nflags\t\t: fpu hypervisor sse\n";
        let host = Host::from_cpuinfo(text);
        assert_eq!((host.cpu.as_str(), host.nested), ("A CPU", true));
        assert!(!Host::from_cpuinfo("flags : fpu sse").nested);
    }
}
