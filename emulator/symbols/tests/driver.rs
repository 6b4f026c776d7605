//! The guest driver's own image and PDB, once they are built.
//!
//! `DMASAN_TEST_DRIVER` names another image, with its PDB beside it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::LittleEndian as LE;
use object::pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile64};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use symbols::{Module, Registers, SymbolTable, Symbolizer, Unwinder, pdb_reference};

const BASE: u64 = 0xffff_f800_1000_0000;
const STACK_TOP: u64 = 0xffff_8000_0100_0000;

fn image() -> Vec<u8> {
    std::fs::read(image_path()).unwrap()
}

fn image_path() -> PathBuf {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../out/driver/plain/dmasan-gpu.sys"
    );
    std::env::var_os("DMASAN_TEST_DRIVER")
        .unwrap_or_else(|| built.into())
        .into()
}

fn pdb() -> Vec<u8> {
    let name = pdb_reference(&image()).unwrap().name;
    let beside = image_path().with_file_name(name);
    std::fs::read(if beside.exists() {
        beside
    } else {
        image_path().with_extension("pdb")
    })
    .unwrap()
}

/// The image in memory layout.
fn mapped(file: &[u8]) -> Vec<u8> {
    let pe = PeFile64::parse(file).unwrap();
    let optional = pe.nt_headers().optional_header();
    let mut memory = vec![0; optional.size_of_image() as usize];
    let headers = optional.size_of_headers() as usize;
    memory[..headers].copy_from_slice(&file[..headers]);
    for section in pe.section_table().iter() {
        let data = section.pe_data(file).unwrap();
        let at = section.virtual_address.get(LE) as usize;
        memory[at..at + data.len()].copy_from_slice(data);
    }
    memory
}

struct Function {
    begin: u32,
    end: u32,
    prolog: u32,
    chained: bool,
}

fn functions(file: &[u8], memory: &[u8]) -> Vec<Function> {
    let pe = PeFile64::parse(file).unwrap();
    let directory = pe.data_directory(IMAGE_DIRECTORY_ENTRY_EXCEPTION).unwrap();
    let (at, size) = directory.address_range();
    let word = |at: usize| u32::from_le_bytes(memory[at..at + 4].try_into().unwrap());
    (at as usize..(at + size) as usize)
        .step_by(12)
        .map(|entry| {
            let info = word(entry + 8) as usize;
            Function {
                begin: word(entry),
                end: word(entry + 4),
                prolog: memory[info + 1].into(),
                chained: memory[info] >> 3 & 4 != 0,
            }
        })
        .collect()
}

/// Just enough of a processor to run prologs and epilogs.
#[derive(Clone)]
struct Machine {
    registers: BTreeMap<Register, u64>,
    memory: BTreeMap<u64, u64>,
}

impl Machine {
    fn new(return_address: u64) -> Self {
        let mut registers: BTreeMap<Register, u64> = [
            Register::RBX,
            Register::RBP,
            Register::RSI,
            Register::RDI,
            Register::R12,
            Register::R13,
            Register::R14,
            Register::R15,
        ]
        .into_iter()
        .zip(1u64..)
        .collect();
        registers.insert(Register::RSP, STACK_TOP);
        Self {
            registers,
            memory: BTreeMap::from([(STACK_TOP, return_address)]),
        }
    }

    fn get(&self, register: Register) -> u64 {
        self.registers.get(&register).copied().unwrap_or(0)
    }

    fn address(&self, instruction: &Instruction) -> u64 {
        self.get(instruction.memory_base())
            .wrapping_add(instruction.memory_displacement64())
    }

    /// Runs an instruction if it is one of those that move the stack or save
    /// and restore registers.
    fn run(&mut self, instruction: &Instruction) {
        let first = instruction.op0_register();
        let rsp = self.get(Register::RSP);
        match (
            instruction.mnemonic(),
            instruction.op0_kind(),
            instruction.op1_kind(),
        ) {
            (Mnemonic::Push, ..) => {
                self.memory.insert(rsp - 8, self.get(first));
                self.registers.insert(Register::RSP, rsp - 8);
            }
            (Mnemonic::Pop, ..) => {
                let value = self.memory.get(&rsp).copied().unwrap_or(0);
                self.registers.insert(first, value);
                self.registers.insert(Register::RSP, rsp + 8);
            }
            (Mnemonic::Sub | Mnemonic::Add, OpKind::Register, kind)
                if first == Register::RSP && kind != OpKind::Memory =>
            {
                let amount = match kind {
                    OpKind::Register => self.get(instruction.op1_register()),
                    _ => instruction.immediate(1),
                };
                let sub = instruction.mnemonic() == Mnemonic::Sub;
                let rsp = if sub { rsp - amount } else { rsp + amount };
                self.registers.insert(Register::RSP, rsp);
            }
            (Mnemonic::Mov, OpKind::Register, OpKind::Immediate32)
                if instruction.code() == Code::Mov_r32_imm32 && first == Register::EAX =>
            {
                self.registers
                    .insert(Register::RAX, instruction.immediate(1));
            }
            (Mnemonic::Lea, ..) => {
                self.registers.insert(first, self.address(instruction));
            }
            (Mnemonic::Mov, OpKind::Register, OpKind::Register) => {
                self.registers
                    .insert(first, self.get(instruction.op1_register()));
            }
            (Mnemonic::Mov, OpKind::Memory, OpKind::Register)
                if instruction.memory_base() == Register::RSP =>
            {
                self.memory.insert(
                    self.address(instruction),
                    self.get(instruction.op1_register()),
                );
            }
            _ => {}
        }
    }

    fn state(&self, rip: u64) -> Registers {
        Registers {
            rip,
            rsp: self.get(Register::RSP),
            rbp: self.get(Register::RBP),
            rbx: self.get(Register::RBX),
            rsi: self.get(Register::RSI),
            rdi: self.get(Register::RDI),
            r12: self.get(Register::R12),
            r13: self.get(Register::R13),
            r14: self.get(Register::R14),
            r15: self.get(Register::R15),
        }
    }
}

/// Runs every prolog and every epilog of the image, and asks at each
/// instruction for the caller.
#[test]
#[ignore = "needs the guest driver: run scripts/build-driver first"]
fn caller_is_found_from_every_instruction_of_the_driver() {
    let file = image();
    let memory = mapped(&file);
    let mut unwinder = Unwinder::new();
    unwinder.add_module("driver.sys", BASE, &memory).unwrap();
    let functions = functions(&file, &memory);
    // A caller that exists: the first function after its prolog.
    let caller = BASE + u64::from(functions[0].begin + functions[0].prolog + 1);
    let mut asked = 0;

    for function in functions.iter().filter(|function| !function.chained) {
        let code = &memory[function.begin as usize..function.end as usize];
        let start = BASE + u64::from(function.begin);
        let mut machine = Machine::new(caller);
        let mut whole = None;
        for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE) {
            if instruction.is_invalid() {
                break;
            }
            let rip = instruction.ip();
            if rip - start >= u64::from(function.prolog) && whole.is_none() {
                whole = Some(machine.clone());
            }
            let stack = unwinder.unwind(
                &machine.state(rip),
                &mut |address| Some(machine.memory.get(&address).copied().unwrap_or(0)),
                2,
            );
            assert_eq!(
                stack,
                [rip, caller],
                "{rip:#x} in function {start:#x}: {instruction}"
            );
            asked += 1;
            let returns = matches!(instruction.mnemonic(), Mnemonic::Ret | Mnemonic::Jmp);
            match &whole {
                // The body after an epilog has the whole frame again.
                Some(whole) if returns => machine = whole.clone(),
                Some(_) if !moves_stack(&instruction) => {}
                _ => machine.run(&instruction),
            }
        }
    }
    assert!(asked > functions.len(), "{asked}");
}

fn moves_stack(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Pop
        || (instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() == Register::RSP)
}

#[test]
#[ignore = "needs the guest driver: run scripts/build-driver first"]
fn image_and_pdb_of_the_driver_belong_together() {
    let table = SymbolTable::from_pdb(&pdb()).unwrap();

    assert!(table.matches(&pdb_reference(&image()).unwrap()));
}

#[test]
#[ignore = "needs the guest driver: run scripts/build-driver first"]
fn functions_of_the_driver_have_names_files_and_lines() {
    let file = image();
    let memory = mapped(&file);
    let mut symbolizer = Symbolizer::new();
    symbolizer.add_module(Module {
        name: "driver.sys".into(),
        base: BASE,
        size: memory.len() as u64,
        symbols: Some(SymbolTable::from_pdb(&pdb()).unwrap()),
    });

    let table = symbolizer.modules()[0].symbols.as_ref().unwrap();
    let entry = table.address_of("DriverEntry").unwrap();
    let frames = table.lookup(entry);
    let last = frames.last().unwrap();
    assert!(last.function.ends_with("DriverEntry"), "{last}");
    assert!(
        last.file.as_deref().unwrap().ends_with(".rs") && last.line.is_some(),
        "{last}"
    );

    let mut with_line = 0;
    let mut inlined = 0;
    let functions = functions(&file, &memory);
    for function in &functions {
        for rva in function.begin..function.end {
            let described = symbolizer.describe(BASE + u64::from(rva), false);
            let last = described.frames.last().unwrap();
            assert!(!last.inlined && !last.function.contains("_ZN"), "{last}");
            assert!(
                described
                    .frames
                    .iter()
                    .rev()
                    .skip(1)
                    .all(|frame| frame.inlined)
            );
            with_line += usize::from(last.line.is_some());
            inlined += described.frames.len() - 1;
        }
    }
    assert!(with_line > 0 && inlined > 0);
}

#[test]
#[ignore = "needs the guest driver: run scripts/build-driver first"]
fn damaged_pdb_of_the_driver_never_panics() {
    let good = pdb();
    let len = good.len();
    let mut runner = TestRunner::new(ProptestConfig::default());
    let flips = proptest::collection::vec((0..len, any::<u8>()), 1..64);
    runner
        .run(&(flips, 0..len, any::<bool>()), |(flips, cut, cuts)| {
            let mut bytes = good.clone();
            for (at, value) in flips {
                bytes[at] = value;
            }
            bytes.truncate(if cuts { cut } else { len });
            if let Ok(table) = SymbolTable::from_pdb(&bytes) {
                for rva in (0..0x10000).step_by(7) {
                    let _ = table.lookup(rva);
                }
            }
            Ok(())
        })
        .unwrap();
}
