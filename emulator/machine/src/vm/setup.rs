//! Making the machine: KVM's file descriptors, memory slots, CPUID and the
//! system registers of code at CPL 3 in long mode.
#![allow(unsafe_code)] // KVM maps our memory by its host address

use super::cpuid;
use super::error::{SpaceError, VmError};
use super::layout::{self, FRAME, USER_CS, USER_SS};
use super::registers::{FpuState, Registers};
use super::space::AddressSpace;
use super::vcpu::{Stopped, Vm};
use kvm_bindings::{
    KVM_API_VERSION, KVM_MEM_LOG_DIRTY_PAGES, kvm_dtable, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VmFd};
use memory::GuestMemory;
use std::sync::Arc;

/// Three pages that KVM wants on some hosts for real mode, which we never
/// use: in the firmware's part of the address space.
const REAL_MODE_TSS: usize = 0xfffb_d000;

// Control register bits (Intel SDM vol. 3, 2.5 and 2.2.1).
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31; // PE MP ET NE WP PG
const CR4_TSD: u64 = 1 << 2;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11; // LME LMA NXE, and no SCE

impl Vm {
    /// A machine with the RAM and the page tables of `space`.
    ///
    /// # Errors
    /// [`VmError::NoKvm`], [`VmError::NotPermitted`], [`VmError::Lacks`],
    /// [`VmError::Kvm`].
    pub fn new(space: &AddressSpace) -> Result<Self, VmError> {
        let kvm = open()?;
        let fd = create(&kvm)?;
        // Needed on some Intel hosts, refused on others: no harm either way.
        let _ = fd.set_tss_address(REAL_MODE_TSS);
        let memory = Arc::clone(space.memory());
        let (frame, _) = space.translate(FRAME).ok_or(SpaceError::NotMapped(FRAME))?;
        set_slots(&fd, &memory, true)?;
        let vcpu = fd.create_vcpu(0).map_err(VmError::kvm("KVM_CREATE_VCPU"))?;
        let cpuid = cpuid::table().ok_or(VmError::Lacks("a CPUID table of its size"))?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(VmError::kvm("KVM_SET_CPUID2"))?;
        let mut vm = Self {
            vcpu,
            fd,
            memory,
            frame,
            alarm: None,
            sync_regs: kvm.check_extension(Cap::SyncRegs),
            registers: Registers::default(),
            dirty: true,
            stopped: Stopped::User,
            queued: None,
            cut_short: false,
            out_moves_rip: None,
            unfinished_out: None,
            gs_base: 0,
            exits: 0,
        };
        if vm.sync_regs {
            vm.vcpu.set_sync_valid_reg(SyncReg::Register);
            // With the system registers comes CR2.
            vm.vcpu.set_sync_valid_reg(SyncReg::SystemRegister);
        }
        vm.enter_long_mode(space)?;
        vm.set_fpu(&FpuState::default())?;
        Ok(vm)
    }

    fn enter_long_mode(&mut self, space: &AddressSpace) -> Result<(), VmError> {
        let mut sregs = self
            .vcpu
            .get_sregs()
            .map_err(VmError::kvm("KVM_GET_SREGS"))?;
        let code = kvm_segment {
            limit: 0xffff_ffff,
            selector: USER_CS,
            type_: 11, // execute, read, accessed
            present: 1,
            dpl: 3,
            s: 1,
            l: 1,
            g: 1,
            ..Default::default()
        };
        let data = kvm_segment {
            selector: USER_SS,
            type_: 3, // read, write, accessed
            db: 1,
            l: 0,
            ..code
        };
        (sregs.cs, sregs.ss, sregs.ds, sregs.es) = (code, data, data, data);
        (sregs.fs, sregs.gs) = (data, data);
        sregs.tr = kvm_segment {
            base: layout::TSS.0,
            limit: layout::TSS_LIMIT,
            selector: layout::TSS_SELECTOR,
            type_: 11, // busy 64-bit TSS
            present: 1,
            ..Default::default()
        };
        sregs.gdt = kvm_dtable {
            base: layout::GDT.0,
            limit: layout::GDT_LIMIT,
            ..Default::default()
        };
        sregs.idt = kvm_dtable {
            base: layout::IDT.0,
            limit: layout::IDT_LIMIT,
            ..Default::default()
        };
        sregs.cr0 = CR0;
        sregs.cr3 = space.root().base().0;
        sregs.efer = EFER;
        let cr4 = CR4_PAE | CR4_TSD | CR4_OSFXSR | CR4_OSXMMEXCPT;
        sregs.cr4 = cr4 | CR4_UMIP;
        if self.vcpu.set_sregs(&sregs).is_ok() {
            return Ok(());
        }
        // A host without UMIP: the loader patches sgdt and its kind anyway.
        sregs.cr4 = cr4;
        self.vcpu
            .set_sregs(&sregs)
            .map_err(VmError::kvm("KVM_SET_SREGS"))
    }
}

/// A signal to the thread (Ctrl-C) makes KVM_CREATE_VM fail: try again.
fn create(kvm: &Kvm) -> Result<VmFd, VmError> {
    const ATTEMPTS: u32 = 16;
    for _ in 1..ATTEMPTS {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(VmError::kvm("KVM_CREATE_VM")),
        }
    }
    kvm.create_vm().map_err(VmError::kvm("KVM_CREATE_VM"))
}

/// Open `/dev/kvm` and see that it is usable.
pub(super) fn open() -> Result<Kvm, VmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => VmError::NoKvm,
        libc::EACCES | libc::EPERM => VmError::NotPermitted,
        _ => VmError::kvm("opening /dev/kvm")(error),
    })?;
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err(VmError::Lacks("API version 12"));
    }
    for (capability, name) in [
        (Cap::UserMemory, "user memory slots"),
        (Cap::ImmediateExit, "immediate exit"),
        (Cap::Xsave, "XSAVE state"),
    ] {
        if !kvm.check_extension(capability) {
            return Err(VmError::Lacks(name));
        }
    }
    Ok(kvm)
}

/// Add or remove RAM.
pub(super) fn set_slots(fd: &VmFd, memory: &GuestMemory, present: bool) -> Result<(), VmError> {
    for (number, slot) in memory.slots().iter().enumerate() {
        let host = memory
            .host_address(slot.file_offset)
            .ok_or(VmError::Lacks("a mapping of guest memory"))?;
        let region = kvm_userspace_memory_region {
            slot: number as u32,
            // The CPU's writes are logged: see `Vm::written`.
            flags: KVM_MEM_LOG_DIRTY_PAGES,
            guest_phys_addr: slot.base.0,
            memory_size: if present { slot.size } else { 0 },
            userspace_addr: host,
        };
        // SAFETY: the range is the whole of a live mapping that `Vm` keeps
        // alive (it holds an Arc of the memory, dropped after the VM).
        unsafe { fd.set_user_memory_region(region) }
            .map_err(VmError::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}
