//! The adapter: what one device has, and how it starts and stops.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::callbacks::Callbacks;
use crate::gpu;
use crate::interrupt::{Interrupts, Vectors};
use crate::memory::Contiguous;
use crate::nt::{ExAllocatePoolWithTag, ExFreePoolWithTag, Result, TAG, log};
use crate::pci;
use crate::queue::{COMMAND_BYTES, QUEUE_SIZE, Queue};
use crate::registry::{self, Settings};
use crate::resource::{self, Context, Table};
use crate::ring::Layout;
use crate::spec::dxgk::Interface;
use crate::spec::gpu::CONTROL_QUEUE;
use crate::spec::nt::{
    NON_PAGED_POOL_NX, STATUS_DEVICE_CONFIGURATION_ERROR, STATUS_DEVICE_NOT_READY,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER,
};
use crate::spec::pci::{COMMAND_BUS_MASTER, COMMAND_MEMORY};
use crate::sync::{Mutex, MutexGuard};
use crate::virtio::Transport;

/// What StartDevice took and StopDevice gives back, in the order taken.
pub struct Device {
    callbacks: Callbacks,
    /// Memory space or bus mastering that was off and that we turned on.
    enabled: u16,
    transport: Option<Transport>,
    rings: Option<Contiguous>,
    commands: Option<Contiguous>,
}

/// Everything that is used below DISPATCH_LEVEL only.
pub struct State {
    /// `Some` from StartDevice to StopDevice.
    pub device: Option<Device>,
    /// From the registry, at start.
    pub settings: Settings,
    /// The resources.
    pub resources: Table,
    /// Between Begin- and EndExclusiveAccess: the device must not touch
    /// memory.
    pub exclusive: bool,
}

/// The context that every entry point gets; nonpaged, never moved.
pub struct Adapter {
    state: Mutex<State>,
    queue: Queue,
    interrupts: Interrupts,
    /// The device status register, for ResetDevice, which takes no lock.
    status: AtomicPtr<u8>,
}

impl Adapter {
    /// Allocates an adapter; PASSIVE_LEVEL.
    #[inline(never)]
    pub fn create() -> Result<*mut Self> {
        // SAFETY: nonpaged memory, because the interrupt routine reads it.
        let memory = unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, size_of::<Self>(), TAG) };
        let adapter = memory.cast::<Self>();
        if adapter.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        // SAFETY: fresh memory of that size; pool blocks are aligned to 16.
        unsafe {
            adapter.write(Self {
                state: Mutex::new(State {
                    device: None,
                    settings: Settings::default(),
                    resources: Table::new(),
                    exclusive: false,
                }),
                queue: Queue::new(),
                interrupts: Interrupts::new(),
                status: AtomicPtr::new(ptr::null_mut()),
            });
            (*adapter).state.init();
            (*adapter).queue.init();
        }
        Ok(adapter)
    }

    /// Frees an adapter that is stopped.
    ///
    /// # Safety
    /// `adapter` came from [`create`](Self::create) and is not used again.
    #[inline(never)]
    pub unsafe fn destroy(adapter: *mut Self) {
        #[cfg(feature = "defects")]
        crate::defects::cpu::freeing(adapter.cast(), size_of::<Self>());
        // SAFETY: nothing in it has a destructor: StopDevice emptied it.
        unsafe { ExFreePoolWithTag(adapter.cast(), TAG) }
        #[cfg(feature = "defects")]
        crate::defects::cpu::freed(adapter.cast(), size_of::<Self>());
    }

    /// The adapter behind a context, or the status for none.
    ///
    /// # Safety
    /// `context` is null or what AddDevice handed out, before RemoveDevice.
    pub unsafe fn from_context<'a>(context: *mut c_void) -> Result<&'a Self> {
        // SAFETY: the caller's promise.
        unsafe { context.cast::<Self>().as_ref() }.ok_or(STATUS_INVALID_PARAMETER)
    }

    /// Takes the state; below DISPATCH_LEVEL.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// What the resource functions need; an error while stopped.
    pub fn context<'a>(&'a self, device: &'a Option<Device>) -> Result<Context<'a>> {
        let device = device.as_ref().ok_or(STATUS_DEVICE_NOT_READY)?;
        Ok(Context {
            queue: &self.queue,
            callbacks: &device.callbacks,
        })
    }

    /// StartDevice.
    ///
    /// # Safety
    /// `interface` must point to dxgkrnl's interface.
    #[inline(never)]
    pub unsafe fn start(&self, interface: *const Interface) -> Result<()> {
        let mut state = self.state();
        if state.device.is_some() {
            return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
        }
        // SAFETY: the caller's promise.
        let callbacks = unsafe { Callbacks::copy(interface) }?;
        state.device = Some(Device {
            callbacks,
            enabled: 0,
            transport: None,
            rings: None,
            commands: None,
        });
        let result = self.bring_up(&mut state);
        match result {
            Ok(()) => log!("started"),
            Err(status) => {
                if let Some(transport) = state.device.as_ref().and_then(|d| d.transport.as_ref()) {
                    transport.fail();
                }
                self.tear_down(&mut state);
                log!("not started: 0x%x", status)
            }
        };
        result
    }

    #[inline(never)]
    fn bring_up(&self, state: &mut State) -> Result<()> {
        let device = state.device.as_mut().ok_or(STATUS_DEVICE_NOT_READY)?;
        let callbacks = device.callbacks;
        let information = callbacks.device_information()?;
        state.settings = registry::settings(&information.device_registry_path)?;

        let function = pci::discover(&callbacks)?;
        // SAFETY: dxgkrnl's list, whole.
        let assigned =
            unsafe { pci::assigned(information.translated_resource_list, &function.bars) };
        let vectors = Vectors::new(&assigned);
        if pci::enable(&callbacks, COMMAND_MEMORY)? {
            device.enabled |= COMMAND_MEMORY;
        }
        let transport = device
            .transport
            .insert(Transport::map(&callbacks, &function, &assigned)?);
        self.status
            .store(transport.status_register(), Ordering::Release);

        // Reset before bus mastering: whatever ran before us must not write
        // into memory that is somebody else's by now.
        transport.reset()?;
        if pci::enable(&callbacks, COMMAND_BUS_MASTER)? {
            device.enabled |= COMMAND_BUS_MASTER;
        }
        transport.negotiate()?;
        if let Some(vector) = vectors.config {
            transport.set_config_vector(vector)?;
        }

        let size = transport.queue_size(CONTROL_QUEUE).min(QUEUE_SIZE);
        let layout = Layout::new(size).ok_or(STATUS_DEVICE_CONFIGURATION_ERROR)?;
        let rings = *device
            .rings
            .insert(Contiguous::allocate(&callbacks, layout.bytes)?);
        let commands = *device
            .commands
            .insert(Contiguous::allocate(&callbacks, COMMAND_BYTES)?);
        let doorbell =
            transport.enable_queue(CONTROL_QUEUE, &layout, rings.device_address, vectors.queue)?;
        let polled = state.settings.poll_completion;
        self.queue
            .start(layout, &rings, &commands, doorbell, polled);
        self.interrupts.start(&callbacks, transport, vectors);
        transport.start();

        match gpu::get_display_info(&self.queue)? {
            Some((width, height)) => log!("display %u x %u", width, height),
            None => log!("no display is connected"),
        };
        Ok(())
    }

    /// StopDevice; also after a start that failed half-way.
    #[inline(never)]
    pub fn stop(&self) {
        let mut state = self.state();
        if state.device.is_none() {
            return;
        }
        let state = &mut *state;
        if let Ok(context) = self.context(&state.device) {
            resource::free_all(&context, &mut state.resources);
        }
        self.tear_down(state);
        log!("stopped");
    }

    /// Resets the device and gives everything back. After this nothing of
    /// ours is reachable by the device or by an interrupt.
    #[inline(never)]
    fn tear_down(&self, state: &mut State) {
        let Some(mut device) = state.device.take() else {
            return;
        };
        let callbacks = &device.callbacks;
        if let Some(transport) = &device.transport
            && transport.reset().is_err()
        {
            // A device that does not confirm its reset must be cut off
            // before its memory goes back.
            log!("the device did not confirm its reset");
            let _ = pci::disable(callbacks, COMMAND_BUS_MASTER);
        }
        self.interrupts.stop();
        self.queue.shut_down();
        resource::release_all(callbacks, &mut state.resources);
        #[cfg(feature = "defects")]
        crate::defects::life::forget(&mut device.commands);
        for block in [device.commands.take(), device.rings.take()]
            .into_iter()
            .flatten()
        {
            let _ = block.release(callbacks);
        }
        self.status.store(ptr::null_mut(), Ordering::Release);
        if let Some(mut transport) = device.transport.take() {
            transport.unmap(callbacks);
        }
        if device.enabled != 0 {
            let _ = pci::disable(callbacks, device.enabled);
        }
        state.resources = Table::new();
        state.exclusive = false;
    }

    /// BeginExclusiveAccess: no new commands, and none outstanding on
    /// return. The device reads and writes only for commands, so from here
    /// to [`end_exclusive`](Self::end_exclusive) it touches no memory.
    #[inline(never)]
    pub fn begin_exclusive(&self) -> Result<()> {
        let mut state = self.state();
        if state.device.is_none() {
            return Err(STATUS_DEVICE_NOT_READY);
        }
        #[cfg(feature = "defects")]
        crate::defects::life::before_wait(&self.queue);
        self.queue.wait_idle()?;
        #[cfg(feature = "defects")]
        crate::defects::life::after_wait(&self.queue);
        state.exclusive = true;
        Ok(())
    }

    /// EndExclusiveAccess.
    #[inline(never)]
    pub fn end_exclusive(&self) -> Result<()> {
        self.state().exclusive = false;
        Ok(())
    }

    /// The interrupt routine's half that knows the adapter.
    pub fn interrupt(&self, message: u32) -> bool {
        self.interrupts.interrupt(message, &self.queue)
    }

    /// The DPC's half that knows the adapter.
    pub fn deferred(&self) {
        self.interrupts.deferred(&self.queue);
    }

    /// ResetDevice: any IRQL, perhaps in a dying system; takes no lock and
    /// waits for nothing.
    #[inline(never)]
    pub fn reset_hardware(&self) {
        let status = self.status.load(Ordering::Acquire);
        if !status.is_null() {
            // SAFETY: mapped while it is not null.
            unsafe { ptr::write_volatile(status, 0) }
        }
    }
}
