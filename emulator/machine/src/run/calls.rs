//! Calls of the driver to Windows, and returns of its routines.

use super::Machine;
use super::threads::{Purpose, Thread, Waiting};
use crate::error::MachineError;
use crate::vm::Gpr;
use journal::event::{End, Event};
use memory::Gva;
use windows::dxgk::DriverCall;
use windows::{Call, Outcome, Platform, layout, processor};

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
        let frames = self.board.frames();
        let name = self.windows.thunk_name(index).unwrap_or("?").to_owned();
        let journal = self.board.scenario.journal();
        let stack = journal.stack(&frames);
        let function = journal.name(&name);
        // KeQueryPerformanceCounter, KeQueryInterruptTime and their kind.
        if name.starts_with("KeQuery") {
            self.state.goes_by_time();
        }
        journal.emit(Event::Call {
            function,
            arguments: call.registers.to_vec(),
            irql: self.windows.executive.irql(),
            thread: self.state.current as u32,
            stack,
        });
        let faulty = self.board.scenario.is_faulty();
        if faulty {
            self.board.scenario.begin_call(&name, &frames);
        }
        let outcome = self.windows.call(&mut self.board, index, &call);
        if faulty {
            self.board.scenario.end_call();
        }
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
        let irql = self.windows.executive.irql();
        let is_thread = matches!(frame.purpose, Purpose::Thread);
        if irql != frame.called_at {
            let worker = self.windows.executive.worker_at_irql(irql);
            let stop = worker
                .filter(|_| is_thread)
                .unwrap_or_else(|| processor::irql_left(frame.name, frame.called_at, irql));
            if let Some(end) = self.bug_check(stop)? {
                return Ok(Some(end));
            }
        }
        if self.thread().frames.is_empty() {
            let half = self.windows.is_half(frame.name, value);
            let executive = &mut self.windows.executive;
            let current = executive.current_thread();
            let left = match executive.thread(current) {
                Some(thread) if is_thread && thread.item.is_none() => executive.ends_with(current),
                _ if half => None,
                _ => executive.apcs_left(frame.name),
            };
            if let Some(stop) = left
                && let Some(end) = self.bug_check(stop)?
            {
                return Ok(Some(end));
            }
        }
        self.windows
            .executive
            .set_irql(&mut self.board, frame.irql)
            .map_err(MachineError::Platform)?;
        self.board.state.interrupts = frame.interrupts;
        self.thread_mut().waiting = frame.waiting;
        if let Some(cpu) = &frame.resume {
            self.board.vm.restore_cpu(cpu)?;
        }
        match frame.purpose {
            Purpose::Life => {
                self.state.result = value;
                self.state.life_goes_on(self.board.scenario.now());
                self.windows.settle_power(&mut self.board);
            }
            Purpose::Asynchronous => {}
            Purpose::Nested {
                function,
                value: instead,
                store,
            } => {
                if let Some(at) = store
                    && let Err(error) = self.board.write(at, &[value as u8])
                    && let Outcome::Stop(stop) = self.windows.explain(error.into())
                {
                    return self.bug_check(stop);
                }
                let value = instead.unwrap_or(value);
                self.board
                    .scenario
                    .journal()
                    .emit(Event::Return { function, value });
                self.give(value)?;
            }
            Purpose::Thread => {
                self.end_thread()?;
                // A worker may have got its next item already: the others
                // have their turn first.
                self.start_threads()?;
                self.switch_to(0)?;
            }
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

    /// A thread on the stack of one that has ended, if there is one, as
    /// Windows keeps stacks for the next thread; else on a new one.
    fn new_thread(&mut self, index: usize) -> Result<Thread, MachineError> {
        let executive = &self.windows.executive;
        // A worker keeps its own for its next item.
        let worker = |n: usize| (executive.thread(n as u32)).is_some_and(|t| t.item.is_some());
        let over = |n: usize, t: &Thread| t.ended && n != self.state.current && !worker(n);
        let threads = &self.state.threads;
        let left = threads.iter().enumerate().find_map(|(n, thread)| {
            let taken = threads
                .iter()
                .enumerate()
                .any(|(m, other)| m != n && other.stack == thread.stack && !over(m, other));
            (over(n, thread) && !taken).then_some(thread.stack)
        });
        let thread = match left {
            Some(stack) => Thread::new(stack),
            None => {
                let stack = layout::stack_top(index as u32);
                self.map_stack(stack)?;
                Thread::new(stack)
            }
        };
        let limit = Gva(thread.stack.0 - layout::STACK_SIZE);
        self.windows
            .executive
            .set_stack(&mut self.board, index as u32, thread.stack, limit)
            .map_err(MachineError::Platform)?;
        Ok(thread)
    }

    /// Threads that the last call created, or gave work: each gets a stack and a first
    /// frame, and runs when the current one waits.
    fn start_threads(&mut self) -> Result<(), MachineError> {
        let threads = &self.state.threads;
        let is_new = |t: &&windows::executive::Thread| match threads.get(t.id as usize) {
            None => true,
            // A worker with its next item.
            Some(thread) => thread.ended && t.ended.is_none(),
        };
        let all = self.windows.executive.threads().iter();
        let new: Vec<_> = all.filter(is_new).cloned().collect();
        for start in new {
            let index = start.id as usize;
            match self.state.threads.get_mut(index) {
                Some(thread) => *thread = Thread::new(thread.stack),
                None => {
                    let thread = self.new_thread(index)?;
                    self.state.threads.push(thread);
                }
            }
            let back = self.state.current;
            self.switch_to(index)?;
            self.enter(
                &DriverCall {
                    name: "system thread",
                    routine: start.start,
                    arguments: start.arguments,
                    irql: 0,
                },
                Purpose::Thread,
            )?;
            self.switch_to(back)?;
        }
        Ok(())
    }
}
