//! The machine as plain data.

use super::{Machine, RunState};
use crate::board::BoardState;
use crate::error::MachineError;
use crate::vm::{CpuState, SpaceState};
use iommu::UnitState;
use memory::Image;
use windows::Windows;

/// Everything a machine needs to go on from one moment: no host pointer, no
/// file, no thread in it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    memory: Image,
    cpu: CpuState,
    space: SpaceState,
    board: BoardState,
    unit: UnitState,
    gpu: gpu::State,
    windows: Windows,
    run: RunState,
    scenario: scenario::State,
    journal: journal::State,
}

impl Snapshot {
    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &Image {
        &self.memory
    }

    /// Bytes of guest memory that it holds.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.bytes()
    }
}

impl Machine {
    /// The machine now, between two steps.
    ///
    /// # Errors
    /// [`MachineError::Vm`]: the CPU is inside an instruction; step on.
    pub fn save(&self) -> Result<Snapshot, MachineError> {
        Ok(Snapshot {
            memory: self.board.image()?,
            cpu: self.board.vm.save_cpu()?,
            space: self.board.space.save(),
            board: self.board.state.clone(),
            unit: self.board.unit.save(),
            gpu: self.board.gpu.save(),
            windows: self.windows.clone(),
            run: self.state.clone(),
            scenario: self.board.scenario.save(),
            journal: self.journal().save(),
        })
    }

    /// Go back to a moment of this machine.
    ///
    /// # Errors
    /// [`MachineError::Journal`] if the journal is a file: it only grows.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), MachineError> {
        self.journal().restore(&snapshot.journal)?;
        self.board.scenario.restore(&snapshot.scenario);
        let changed = self.board.restore_memory(&snapshot.memory)?;
        self.board.space.restore(&snapshot.space, &changed);
        self.board.vm.restore_cpu(&snapshot.cpu)?;
        self.board.state = snapshot.board.clone();
        self.board.unit.restore(&snapshot.unit);
        self.board.gpu.restore(&snapshot.gpu);
        self.windows = snapshot.windows.clone();
        self.state = snapshot.run.clone();
        Ok(())
    }
}
