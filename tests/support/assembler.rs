//! Drivers written in assembly, and what a run of one came to.

use super::{image, run, told};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, *};
use std::time::{Duration, Instant};

/// Seconds that a run may take which is to end by itself.
pub const AMPLE: &[&str] = &["--timeout", "30"];
/// Seconds for one that is to be a hang.
pub const BRIEF: &[&str] = &["--timeout", "2"];

/// What a run came to.
pub struct Ran {
    pub code: Option<i32>,
    /// Standard output and error.
    pub text: String,
}

impl Ran {
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        // Wherever the report breaks its lines.
        let parts: Vec<&str> = self.text.split_whitespace().collect();
        let flat = parts.join(" ");
        for word in words {
            assert!(flat.contains(word), "{word:?} is not in {}", self.text);
        }
        assert!(!self.text.contains("panicked"), "{}", self.text);
    }
}

pub fn run_with(
    imports: &[&str],
    arguments: &[&str],
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Ran {
    let mut assembler = CodeAssembler::new(64).unwrap();
    code(&mut assembler).unwrap();
    let code = assembler.assemble(0xFFFF_F800_1000_1000).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("driver.sys");
    std::fs::write(&path, image::driver_with(imports, &code)).unwrap();
    let started = Instant::now();
    let output = run(&path, &folder.path().join("out"), arguments);
    assert!(started.elapsed() < Duration::from_secs(40));
    let (code, stdout, stderr) = told(&output);
    Ran {
        code,
        text: format!("{stdout}\n{stderr}"),
    }
}

pub fn run_code(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Ran {
    run_with(&["DbgPrint"], AMPLE, code)
}

/// `call` of an import; destroys R11.
pub fn call_import(a: &mut CodeAssembler, index: usize) -> Result<(), IcedError> {
    a.mov(r11, image::slot(index))?;
    a.call(qword_ptr(r11))
}
