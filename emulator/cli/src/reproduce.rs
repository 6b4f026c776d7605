//! The command line that gives a run again, from what its journal says.

use journal::event::Begin;
use std::path::Path;

/// `dmasan run ...`, or `dmasan qemu ...`, for the run that began so, with the driver and the
/// scenario file where they are now.
pub fn line(begin: &Begin, driver: &Path, scenario: Option<&Path>) -> String {
    if begin.domain == "guest" {
        // A whole guest does what it does; its machine is all there is to say,
        // and what is injected into it.
        let mut line = format!("dmasan qemu {}", quoted(&driver.to_string_lossy()));
        if let Some(path) = scenario {
            line += &format!(" --scenario {}", quoted(&path.to_string_lossy()));
        }
        return line;
    }
    run(&driver.to_string_lossy(), &options(begin), scenario)
}

/// `dmasan run ...` with these words in it.
pub fn run(driver: &str, options: &[String], scenario: Option<&Path>) -> String {
    let mut line = format!("dmasan run {}", quoted(driver));
    for word in options {
        line += &format!(" {word}");
    }
    if let Some(path) = scenario {
        line += &format!(" --scenario {}", quoted(&path.to_string_lossy()));
    }
    line
}

/// The options that a run began with, but for its scenario, as a shell reads
/// them.
pub fn options(begin: &Begin) -> Vec<String> {
    let mut words = vec![
        format!("--domain {}", quoted(&begin.domain)),
        format!("--seed {}", begin.seed),
    ];
    if begin.iommu_flags != 0 {
        words.push(format!("--iommu-flags {:#x}", begin.iommu_flags));
    }
    if begin.framebuffer_pin_fails {
        words.push("--framebuffer-pin fail".to_owned());
    }
    for (name, value) in &begin.settings {
        words.push(format!("--set {}", quoted(&format!("{name}={value}"))));
    }
    if begin.keep_going {
        words.push("--keep-going".to_owned());
    }
    if begin.quarantine != machine::DEFAULT_QUARANTINE {
        words.push(format!("--quarantine {}", begin.quarantine));
    }
    if begin.memory != machine::DEFAULT_MEMORY {
        words.push(format!("--memory {}", begin.memory >> 20));
    }
    words
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_repeated_by_its_machine() {
        let begin = Begin {
            domain: "guest".to_owned(),
            ..Begin::default()
        };
        let machine = Path::new("qemu-configs/a.toml");
        assert_eq!(
            line(&begin, machine, None),
            "dmasan qemu qemu-configs/a.toml"
        );
        assert_eq!(
            line(&begin, machine, Some(Path::new("b.toml"))),
            "dmasan qemu qemu-configs/a.toml --scenario b.toml"
        );
    }

    #[test]
    fn what_is_not_the_default_is_in_the_line() {
        let begin = Begin {
            domain: "isolation".to_owned(),
            seed: 9,
            quarantine: 0,
            memory: machine::DEFAULT_MEMORY,
            settings: vec![("Name".to_owned(), "two words".to_owned())],
            ..Begin::default()
        };
        let line = line(&begin, Path::new("a/b.sys"), Some(Path::new("it's.toml")));
        assert_eq!(
            line,
            "dmasan run a/b.sys --domain isolation --seed 9 --set 'Name=two words' \
             --quarantine 0 --scenario 'it'\\''s.toml'"
        );
    }
}
