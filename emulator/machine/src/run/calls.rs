//! Calls of the driver to Windows, and returns of its routines.

use super::Machine;
use super::threads::{Purpose, Thread, Waiting};
use crate::error::MachineError;
use crate::vm::Gpr;
use journal::event::{End, Event};
use memory::Gva;
use windows::dxgk::DriverCall;
use windows::{Call, Outcome, Platform};

impl Machine {
    /// The driver called thunk `index`.
    pub(super) fn call(&mut self, index: u32) -> Result<Option<End>, MachineError> {
        let registers = self.board.vm.registers();
        let call = Call {
            registers: [
                registers[Gpr::Rcx],
                registers[Gpr::Rdx],
                registers[Gpr::R8],
                registers[Gpr::R9],
            ],
            stack_pointer: Gva(registers[Gpr::Rsp]),
        };
        let stack = self.board.stack_id();
        let name = self.windows.thunk_name(index).unwrap_or("?").to_owned();
        let journal = self.board.scenario.journal();
        let function = journal.name(&name);
        journal.emit(Event::Call {
            function,
            arguments: call.registers.to_vec(),
            irql: self.windows.executive.irql(),
            thread: self.state.current as u32,
            stack,
        });
        let outcome = self.windows.call(&mut self.board, index, &call);
        // What the call itself made the IOMMU send comes before its return.
        if let Some(end) = self.take_messages()? {
            return Ok(Some(end));
        }
        match outcome {
            Outcome::Return(value) => {
                self.board
                    .scenario
                    .journal()
                    .emit(Event::Return { function, value });
                self.give(value)?;
                self.start_threads()?;
                Ok(None)
            }
            Outcome::Block(wait) => {
                self.thread_mut().waiting = Some(Waiting { wait, function });
                Ok(None)
            }
            Outcome::Invoke {
                name,
                routine,
                arguments,
                irql,
                value,
                store,
            } => {
                let call = DriverCall {
                    name,
                    routine,
                    arguments: arguments.to_vec(),
                    irql,
                };
                let purpose = Purpose::Nested {
                    function,
                    value,
                    store,
                };
                self.enter(&call, purpose)?;
                Ok(None)
            }
            Outcome::EndThread => {
                self.end_thread()?;
                Ok(None)
            }
            Outcome::Stop(stop) => {
                let go_on = stop.go_on;
                if let Some(end) = self.bug_check(stop)? {
                    return Ok(Some(end));
                }
                let value = go_on.unwrap_or(0);
                self.board
                    .scenario
                    .journal()
                    .emit(Event::Return { function, value });
                self.give(value)?;
                Ok(None)
            }
        }
    }

    /// RAX for the driver.
    fn give(&mut self, value: u64) -> Result<(), MachineError> {
        let mut registers = self.board.vm.registers();
        registers[Gpr::Rax] = value;
        self.board.vm.set_registers(&registers)?;
        Ok(())
    }

    /// A routine of the driver that Windows called has returned.
    pub(super) fn routine_returned(&mut self) -> Result<Option<End>, MachineError> {
        let value = self.board.vm.registers()[Gpr::Rax];
        let Some(frame) = self.thread_mut().frames.pop() else {
            return Ok(Some(End::Unsupported {
                reason: "the driver jumped to the return of a routine that Windows never called"
                    .to_owned(),
                stack: self.board.stack_id(),
            }));
        };
        self.board.scenario.journal().emit(Event::Leave {
            routine: frame.routine,
            value,
        });
        self.windows
            .executive
            .set_irql(&mut self.board, frame.irql)
            .map_err(MachineError::Platform)?;
        self.thread_mut().waiting = frame.waiting;
        if let Some(cpu) = &frame.resume {
            self.board.vm.restore_cpu(cpu)?;
        }
        match frame.purpose {
            Purpose::Life => self.state.result = value,
            Purpose::Asynchronous => {}
            Purpose::Nested {
                function,
                value: instead,
                store,
            } => {
                if let Some(at) = store {
                    // A bad pointer of the driver's own: it sees nothing.
                    let _ = self.board.write(at, &[value as u8]);
                }
                let value = instead.unwrap_or(value);
                self.board
                    .scenario
                    .journal()
                    .emit(Event::Return { function, value });
                self.give(value)?;
            }
            Purpose::Thread => self.end_thread()?,
        }
        Ok(None)
    }

    /// The current system thread is over.
    fn end_thread(&mut self) -> Result<(), MachineError> {
        let index = self.state.current;
        let thread = self.thread_mut();
        thread.frames.clear();
        thread.waiting = None;
        thread.ended = true;
        self.windows
            .executive
            .end_thread(&mut self.board, index as u32, 0)
            .map_err(MachineError::Platform)
    }

    /// Threads that the last call created: each gets a stack and a first
    /// frame, and runs when the current one waits.
    fn start_threads(&mut self) -> Result<(), MachineError> {
        while let Some(start) = self
            .windows
            .executive
            .thread(self.state.threads.len() as u32)
            .cloned()
        {
            let index = self.state.threads.len();
            self.map_stack(index as u32)?;
            self.state.threads.push(Thread::new(index as u32));
            let back = self.state.current;
            self.switch_to(index)?;
            self.enter(
                &DriverCall {
                    name: "system thread",
                    routine: start.start,
                    arguments: vec![start.context],
                    irql: 0,
                },
                Purpose::Thread,
            )?;
            self.switch_to(back)?;
        }
        Ok(())
    }
}
