//! Two machines that go on alike: a digest of all that matters.

use super::Machine;
use crate::error::MachineError;
use crate::vm::Gpr;
use memory::{Gva, PAGE_SIZE};
use std::hash::Hash;
use windows::layout;
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

impl Machine {
    /// A digest of everything that what comes next depends on; the journal
    /// and the count of choices are no part of it. Two machines with equal
    /// digests and equal decisions go on alike.
    ///
    /// # Errors
    /// [`MachineError::Vm`]: the CPU is inside an instruction.
    pub fn digest(&self) -> Result<u128, MachineError> {
        let mut hasher = Xxh3::new();
        self.hash_board(&mut hasher)?;
        self.state.hash(&mut hasher);
        self.board.scenario.hash_state(&mut hasher);
        Ok(hasher.digest128())
    }

    /// Hash everything but what is this room's own and the scenario's.
    pub(super) fn hash_board(&self, hasher: &mut Xxh3) -> Result<(), MachineError> {
        self.live_memory()?.hash(hasher);
        // The next call of a routine sets every register.
        if !self.is_between_calls() {
            self.board.vm.save_cpu()?.hash(hasher);
        }
        self.board.space.save().hash(hasher);
        self.board.state.hash(hasher);
        self.board.unit.save().hash(hasher);
        self.board.gpu.hash(hasher);
        self.windows.hash(hasher);
        Ok(())
    }

    /// A digest of memory but for what is dead: what lies below the threads'
    /// stack pointers, which an interrupt may overwrite at any time (the x64
    /// convention of Windows has no red zone), and the frame that the last
    /// trap pushed, which was read when the trap was taken.
    fn live_memory(&self) -> Result<u128, MachineError> {
        let image = self.board.image()?;
        let mut digest = image.digest();
        let mut keep = |page: u64, live: &[u8]| {
            let live = match live.is_empty() {
                true => 0,
                false => xxh3_128_with_seed(live, page),
            };
            let all = image.digest_of(page);
            digest = digest.wrapping_sub(all).wrapping_add(live);
        };
        if let Some(page) = self.board.space.trap_stack() {
            keep(page.0, &[]);
        }
        for (index, thread) in self.state.threads.iter().enumerate() {
            let pointer = match &thread.parked {
                _ if index == self.state.current => self.board.vm.registers()[Gpr::Rsp],
                Some(parked) => parked.cpu.registers[Gpr::Rsp],
                // Its stack may be that of a thread that has ended.
                None => continue,
            };
            let bottom = thread.stack.0.wrapping_sub(layout::STACK_SIZE);
            if thread.ended || !(bottom..thread.stack.0).contains(&pointer) {
                continue;
            }
            for at in (bottom..pointer).step_by(PAGE_SIZE as usize) {
                let Some((gpa, _)) = self.board.space.translate(Gva(at)) else {
                    continue;
                };
                let page = self.board.memory.page_of_file(gpa)?;
                let mut bytes = [0; PAGE_SIZE as usize];
                self.board.memory.read(gpa, &mut bytes)?;
                let dead = (pointer - at).min(PAGE_SIZE) as usize;
                keep(page, bytes.get(dead..).unwrap_or_default());
            }
        }
        Ok(digest)
    }
}
