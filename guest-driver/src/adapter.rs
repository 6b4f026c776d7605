//! The adapter: what one device has, and how it starts and stops.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::callbacks::Callbacks;
use crate::edid::Edid;
use crate::gpu::{self, HEADS};
use crate::interrupt::{Interrupts, Vectors};
use crate::memory::Contiguous;
use crate::mutations::undo;
use crate::nt::{ExAllocatePoolWithTag, ExFreePoolWithTag, Result, TAG, log};
use crate::pci;
use crate::power::{SMALL_BYTES, Saved};
use crate::queue::{CURSOR_QUEUE_SIZE, QUEUE_SIZE, Queue, command_bytes};
use crate::registry::{self, Settings};
use crate::resource::{self, Context, Table};
use crate::ring::Layout;
use crate::spec::dxgk::Interface;
use crate::spec::gpu::{CONFIG_NUM_SCANOUTS, CONTROL_QUEUE, CURSOR_QUEUE, F_RESOURCE_BLOB};
use crate::spec::nt::{
    NON_PAGED_POOL_NX, STATUS_DEVICE_CONFIGURATION_ERROR, STATUS_DEVICE_NOT_READY,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER,
};
use crate::spec::pci::{COMMAND_BUS_MASTER, COMMAND_MEMORY};
use crate::sync::{Mutex, MutexGuard};
use crate::virtio::Transport;

mod quiet;

/// A queue's ring and the slots of its requests.
#[derive(Clone, Copy)]
struct QueueMemory {
    layout: Layout,
    rings: Contiguous,
    commands: Contiguous,
}

impl QueueMemory {
    /// For as many entries as the device can and `limit` allows.
    fn allocate(callbacks: &Callbacks, offered: u16, limit: u16) -> Result<Self> {
        let layout = Layout::new(offered.min(limit)).ok_or(STATUS_DEVICE_CONFIGURATION_ERROR)?;
        let rings = Contiguous::allocate(callbacks, layout.bytes)?;
        let commands = Contiguous::allocate(callbacks, command_bytes(&layout));
        if commands.is_err() {
            let _ = undo!("ring-undo-free", rings.release(callbacks));
        }
        Ok(Self {
            layout,
            rings,
            commands: commands?,
        })
    }
}

#[cfg(feature = "defects")]
#[path = "defects/adapter.rs"]
mod planted;

/// What StartDevice took and StopDevice gives back, in the order taken.
pub struct Device {
    callbacks: Callbacks,
    /// Memory space or bus mastering that was off and that we turned on.
    enabled: u16,
    transport: Option<Transport>,
    vectors: Vectors,
    control: Option<QueueMemory>,
    /// None if the device has no cursor queue.
    cursor: Option<QueueMemory>,
    /// For the frame, when it cannot be saved or restored at once.
    small: Option<Contiguous>,
    /// Scanouts that are driven.
    heads: u32,
    /// The device has blobs.
    blobs: bool,
    /// In D0, and not lost on the way back to it.
    working: bool,
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
    /// What was connected when it was last asked.
    pub displays: [Option<(u32, u32)>; HEADS],
    /// The EDIDs that were read.
    pub edids: [Option<Edid>; HEADS],
    /// The frame in the save area, in D3.
    saved: Option<Saved>,
    /// In D3.
    asleep: bool,
}

/// The context that every entry point gets; nonpaged, never moved.
pub struct Adapter {
    state: Mutex<State>,
    queue: Queue,
    cursor: Queue,
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
                    displays: [None; HEADS],
                    edids: [None; HEADS],
                    saved: None,
                    asleep: false,
                }),
                queue: Queue::new(CONTROL_QUEUE),
                cursor: Queue::new(CURSOR_QUEUE),
                interrupts: Interrupts::new(),
                status: AtomicPtr::new(ptr::null_mut()),
            });
            (*adapter).state.init();
            (*adapter).queue.init();
            (*adapter).cursor.init();
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
        unsafe {
            undo!("adapter-free", ExFreePoolWithTag(adapter.cast(), TAG));
        }
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

    /// What the resource functions need; an error while stopped or in D3.
    pub fn context<'a>(&'a self, device: &'a Option<Device>) -> Result<Context<'a>> {
        let device = device
            .as_ref()
            .filter(|device| device.working)
            .ok_or(STATUS_DEVICE_NOT_READY)?;
        Ok(Context {
            queue: &self.queue,
            cursor: &self.cursor,
            callbacks: &device.callbacks,
            heads: device.heads,
            blobs: device.blobs,
        })
    }

    /// StartDevice.
    ///
    /// Answers the number of video outputs.
    ///
    /// # Safety
    /// `interface` must point to dxgkrnl's interface.
    #[inline(never)]
    pub unsafe fn start(&self, interface: *const Interface) -> Result<u32> {
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
            vectors: Vectors::default(),
            control: None,
            cursor: None,
            small: None,
            heads: 0,
            blobs: false,
            working: false,
        });
        let result = self.bring_up(&mut state);
        #[cfg(feature = "defects")]
        let result = result.and_then(|heads| self.started(&state, heads));
        match result {
            Ok(_) => log!("started"),
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
    fn bring_up(&self, state: &mut State) -> Result<u32> {
        let device = state.device.as_mut().ok_or(STATUS_DEVICE_NOT_READY)?;
        let mut callbacks = device.callbacks;
        let information = callbacks.device_information()?;
        state.settings = registry::settings(&information.device_registry_path)?;

        let function = pci::discover(&callbacks)?;
        // SAFETY: dxgkrnl's list, whole.
        let assigned =
            unsafe { pci::assigned(information.translated_resource_list, &function.bars) };
        device.vectors = Vectors::new(&assigned);
        if pci::enable(&callbacks, COMMAND_MEMORY)? {
            device.enabled |= COMMAND_MEMORY;
        }
        let transport = device
            .transport
            .insert(Transport::map(&callbacks, &function, &assigned)?);
        callbacks.telling = transport.telling;
        device.callbacks.telling = transport.telling;

        // Reset before bus mastering: whatever ran before us must not write
        // into memory that is somebody else's by now.
        undo!("start-reset", transport.reset())?;
        if pci::enable(&callbacks, COMMAND_BUS_MASTER)? {
            device.enabled |= COMMAND_BUS_MASTER;
        }
        device.blobs = transport.negotiate()? & F_RESOURCE_BLOB != 0;
        let scanouts = transport.device.read32(CONFIG_NUM_SCANOUTS);
        device.heads = scanouts.clamp(1, HEADS as u32);

        let size = transport.queue_size(CONTROL_QUEUE);
        device.control = Some(QueueMemory::allocate(&callbacks, size, QUEUE_SIZE)?);
        let size = transport.queue_size(CURSOR_QUEUE);
        if size != 0 {
            device.cursor = Some(QueueMemory::allocate(&callbacks, size, CURSOR_QUEUE_SIZE)?);
        }
        device.small = Some(Contiguous::allocate(&callbacks, SMALL_BYTES)?);
        self.run(device, &state.settings)?;

        state.displays = gpu::get_display_info(&self.queue)?;
        match state.displays.iter().flatten().next() {
            Some((width, height)) => log!("display %u x %u", *width, *height),
            None => log!("no display is connected"),
        };
        Ok(device.heads)
    }

    /// From negotiated features to a device that runs (virtio 1.2 §3.1.1
    /// steps 7 and 8), over memory that the device has not seen, or forgot.
    #[inline(never)]
    fn run(&self, device: &mut Device, settings: &Settings) -> Result<()> {
        let transport = device.transport.as_ref().ok_or(STATUS_DEVICE_NOT_READY)?;
        if let Some(vector) = device.vectors.config {
            transport.set_config_vector(vector)?;
        }
        for (queue, number, memory) in [
            (&self.queue, CONTROL_QUEUE, &device.control),
            (&self.cursor, CURSOR_QUEUE, &device.cursor),
        ] {
            let Some(QueueMemory {
                layout,
                rings,
                commands,
            }) = memory
            else {
                continue;
            };
            let doorbell = transport.enable_queue(
                number,
                layout,
                rings.device_address,
                device.vectors.queue,
            )?;
            queue.start(*layout, rings, commands, doorbell, settings.poll_completion);
        }
        self.status
            .store(transport.status_register(), Ordering::Release);
        self.interrupts
            .start(&device.callbacks, transport, device.vectors);
        transport.start();
        device.working = true;
        Ok(())
    }

    /// Resets the device and forgets what was in flight: after this the
    /// device touches no memory and interrupts nobody.
    #[inline(never)]
    fn halt(&self, device: &mut Device) {
        device.working = false;
        self.status.store(ptr::null_mut(), Ordering::Release);
        if let Some(transport) = &device.transport
            && undo!("device-reset", transport.reset()).is_err()
        {
            // A device that does not confirm its reset must be cut off
            // before its memory goes back.
            log!("the device did not confirm its reset");
            let _ = undo!(
                "cut-off",
                pci::disable(&device.callbacks, COMMAND_BUS_MASTER)
            );
        }
        undo!("interrupts-stop", self.interrupts.stop());
        undo!("queue-shut-down", self.queue.shut_down());
        undo!("cursor-queue-shut-down", self.cursor.shut_down());
    }

    /// StopDevice; also after a start that failed half-way.
    #[inline(never)]
    pub fn stop(&self) {
        let mut state = self.state();
        if state.device.is_none() {
            return;
        }
        let state = &mut *state;
        #[cfg(feature = "defects")]
        if let Some(device) = &state.device {
            crate::defects::races::stopping(&device.callbacks);
        }
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
        // In D3 the device is reset already, and its registers are dead.
        #[cfg(feature = "defects")]
        let halted = state.asleep || self.blank_and_halt(&mut device);
        #[cfg(not(feature = "defects"))]
        let halted = state.asleep;
        if !halted {
            self.halt(&mut device);
        }
        let callbacks = &device.callbacks;
        resource::release_all(callbacks, &mut state.resources);
        if let Some(small) = device.small.take() {
            let _ = undo!("small-buffer-free", small.release(callbacks));
        }
        if let Some(memory) = device.cursor.take() {
            let _ = undo!("cursor-commands-free", memory.commands.release(callbacks));
            let _ = undo!("cursor-ring-free", memory.rings.release(callbacks));
        }
        if let Some(memory) = device.control.take() {
            let commands = Some(memory.commands);
            #[cfg(feature = "defects")]
            let commands = crate::defects::life::forget(commands);
            if let Some(commands) = commands {
                let _ = undo!("commands-free", commands.release(callbacks));
            }
            let _ = undo!("ring-free", memory.rings.release(callbacks));
        }
        if let Some(mut transport) = device.transport.take() {
            undo!("registers-unmap", transport.unmap(callbacks));
        }
        if device.enabled != 0 {
            let _ = undo!("bus-master-off", pci::disable(callbacks, device.enabled));
        }
        state.resources = Table::new();
        state.exclusive = false;
        state.edids = [None; HEADS];
        state.saved = None;
        state.asleep = false;
    }

    /// Asks again what is connected to `head`, and how many heads there are.
    #[inline(never)]
    pub fn display(&self, head: u32) -> Result<(Option<(u32, u32)>, u32)> {
        let mut state = self.state();
        let state = &mut *state;
        let context = self.context(&state.device)?;
        if state.exclusive || head >= context.heads {
            return Err(STATUS_INVALID_PARAMETER);
        }
        state.displays = gpu::get_display_info(context.queue)?;
        Ok((
            state.displays.get(head as usize).copied().flatten(),
            context.heads,
        ))
    }

    /// The EDID of `head`, read the first time it is asked for.
    #[inline(never)]
    pub fn edid(&self, head: u32) -> Result<Edid> {
        let mut state = self.state();
        let state = &mut *state;
        let context = self.context(&state.device)?;
        let heads = context.heads as usize;
        let place = state.edids.iter_mut().take(heads).nth(head as usize);
        let place = place.ok_or(STATUS_INVALID_PARAMETER)?;
        if let Some(edid) = place {
            return Ok(*edid);
        }
        if state.exclusive {
            return Err(STATUS_DEVICE_NOT_READY);
        }
        Ok(*place.insert(gpu::get_edid(context.queue, head)?))
    }

    /// Runs `work` on the resources, unless the device must not be used.
    pub fn with_resources<T>(
        &self,
        work: impl FnOnce(&Context<'_>, &mut Table) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state();
        let state = &mut *state;
        if state.exclusive {
            return Err(STATUS_DEVICE_NOT_READY);
        }
        let context = self.context(&state.device)?;
        work(&context, &mut state.resources)
    }

    /// The interrupt routine's half that knows the adapter.
    pub fn interrupt(&self, message: u32) -> bool {
        self.interrupts
            .interrupt(message, [&self.queue, &self.cursor])
    }

    /// The DPC's half that knows the adapter.
    pub fn deferred(&self) {
        self.interrupts.deferred([&self.queue, &self.cursor]);
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
