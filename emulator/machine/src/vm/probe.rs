//! What this host's KVM can do, for `dmasan doctor`.

use super::error::VmError;
use super::frames::FrameRange;
use super::pte::Protection;
use super::registers::Gpr;
use super::setup::open;
use super::space::AddressSpace;
use super::thunk;
use super::trap::{RunLimit, Trap};
use super::vcpu::Vm;
use memory::{GuestMemory, Gva, Pfn};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXITS: u32 = 200;
const CODE: Gva = Gva(0xffff_f800_0000_0000);

/// Facts about this host's KVM.
#[derive(Clone, Debug, PartialEq)]
pub struct KvmFacts {
    /// The API version: 12 on every kernel since 2007.
    pub api_version: i32,
    /// The module that does the work (`kvm_intel`, `kvm_amd`, ...), if it
    /// shows.
    pub module: Option<String>,
    /// This host is itself a virtual machine, so exits are slow.
    pub nested: bool,
    /// Registers are shared in memory.
    pub sync_regs: bool,
    /// An exit from CPL 3 to us and back, microseconds.
    pub exit_us: f64,
    /// Making a machine, microseconds.
    pub create_us: f64,
}

/// Measure a machine of two instructions.
///
/// # Errors
/// As [`Vm::new`] and [`Vm::run`].
pub fn probe() -> Result<KvmFacts, VmError> {
    let api_version = open()?.get_api_version();
    let memory = Arc::new(GuestMemory::new(1 << 20)?);
    let frames = FrameRange {
        first: Pfn(64),
        count: 64,
    };
    let mut space = AddressSpace::new(memory, frames)?;
    space.map(CODE, Pfn(1), Protection::CODE)?;
    // out CALL_PORT, eax; jmp back to it
    space.write(CODE, &[0xe7, thunk::CALL_PORT as u8, 0xeb, 0xfc])?;

    let start = Instant::now();
    let mut vm = Vm::new(&space)?;
    let create = start.elapsed();
    let mut registers = vm.registers();
    registers.rip = CODE.0;
    vm.set_registers(&registers)?;
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_secs(5)),
        stop: None,
    };
    let mut start = Instant::now();
    for round in 0..=EXITS {
        match vm.run(&mut space, &limit)? {
            Trap::Port { .. } => {}
            _ => return Err(VmError::Lacks("port exits from CPL 3")),
        }
        if round == 0 {
            start = Instant::now(); // the first one fills the page tables
        }
        registers = vm.registers();
        registers[Gpr::Rax] = u64::from(round);
        vm.set_registers(&registers)?;
    }
    let total = start.elapsed();
    Ok(KvmFacts {
        api_version,
        module: module(),
        nested: is_nested(),
        sync_regs: vm.has_sync_regs(),
        exit_us: total.as_secs_f64() * 1e6 / f64::from(EXITS),
        create_us: create.as_secs_f64() * 1e6,
    })
}

fn module() -> Option<String> {
    ["kvm_intel", "kvm_amd", "kvm_pvm"]
        .into_iter()
        .find(|name| Path::new("/sys/module").join(name).exists())
        .map(str::to_owned)
}

/// The processor says that a hypervisor runs below this host.
fn is_nested() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
    })
}
