//! Layouts and constants of x64 Windows that the executive's objects have.
//!
//! Sources: wdm.h and ntddk.h as published in mingw-w64 and ReactOS headers,
//! public symbol dumps for KPCR, KPRCB and KTHREAD, and ntddk.h for
//! KUSER_SHARED_DATA. Offsets are in bytes.

/// IRQLs (wdm.h, x64).
pub mod irql {
    /// PASSIVE_LEVEL.
    pub const PASSIVE: u8 = 0;
    /// APC_LEVEL.
    pub const APC: u8 = 1;
    /// DISPATCH_LEVEL.
    pub const DISPATCH: u8 = 2;
    /// HIGH_LEVEL.
    pub const HIGH: u8 = 15;
}

/// KPCR, with the KPRCB inside it.
pub mod kpcr {
    /// Self.
    pub const SELF: u64 = 0x18;
    /// CurrentPrcb.
    pub const CURRENT_PRCB: u64 = 0x20;
    /// Irql.
    pub const IRQL: u64 = 0x50;
    /// MajorVersion and MinorVersion.
    pub const VERSION: u64 = 0x60;
    /// Where the KPRCB starts.
    pub const PRCB: u64 = 0x180;
    /// KPRCB.Number.
    pub const NUMBER: u64 = 0x184;
    /// KPRCB.CurrentThread.
    pub const CURRENT_THREAD: u64 = 0x188;
    /// Bytes that are set aside: two pages.
    pub const SIZE: u64 = 0x2000;
}

/// KTHREAD, the start of an ETHREAD.
pub mod kthread {
    /// InitialStack.
    pub const INITIAL_STACK: u64 = 0x28;
    /// StackLimit.
    pub const STACK_LIMIT: u64 = 0x30;
    /// StackBase.
    pub const STACK_BASE: u64 = 0x38;
    /// Bytes that are set aside; the rest of the real one is not there.
    pub const SIZE: u64 = 0x800;
}

/// KUSER_SHARED_DATA.
pub mod shared {
    /// TickCountMultiplier.
    pub const TICK_COUNT_MULTIPLIER: u64 = 0x4;
    /// InterruptTime, a KSYSTEM_TIME.
    pub const INTERRUPT_TIME: u64 = 0x8;
    /// SystemTime, a KSYSTEM_TIME.
    pub const SYSTEM_TIME: u64 = 0x14;
    /// NtSystemRoot, 260 characters.
    pub const SYSTEM_ROOT: u64 = 0x30;
    /// NtBuildNumber.
    pub const BUILD: u64 = 0x260;
    /// NtProductType.
    pub const PRODUCT_TYPE: u64 = 0x264;
    /// ProductTypeIsValid.
    pub const PRODUCT_TYPE_IS_VALID: u64 = 0x268;
    /// NativeProcessorArchitecture.
    pub const ARCHITECTURE: u64 = 0x26A;
    /// NtMajorVersion.
    pub const MAJOR_VERSION: u64 = 0x26C;
    /// NtMinorVersion.
    pub const MINOR_VERSION: u64 = 0x270;
    /// QpcFrequency.
    pub const QPC_FREQUENCY: u64 = 0x300;
    /// TickCount, a KSYSTEM_TIME.
    pub const TICK_COUNT: u64 = 0x320;
    /// ActiveProcessorCount.
    pub const ACTIVE_PROCESSORS: u64 = 0x3C0;
}

/// DISPATCHER_HEADER and the objects that start with one.
pub mod dispatcher {
    /// Type; the upper bit is a lock.
    pub const TYPE: u64 = 0;
    /// Size, in 32-bit units.
    pub const SIZE: u64 = 2;
    /// SignalState.
    pub const SIGNAL: u64 = 4;
    /// WaitListHead.
    pub const WAIT_LIST: u64 = 8;
    /// Bytes of the header; a KEVENT is nothing more.
    pub const HEADER: u64 = 0x18;

    /// Type of a notification event.
    pub const NOTIFICATION_EVENT: u8 = 0;
    /// Type of a synchronization event.
    pub const SYNCHRONIZATION_EVENT: u8 = 1;
    /// Type of a mutex.
    pub const MUTANT: u8 = 2;
    /// Type of a semaphore.
    pub const SEMAPHORE: u8 = 5;
    /// Type of a thread.
    pub const THREAD: u8 = 6;
    /// Type of a notification timer.
    pub const NOTIFICATION_TIMER: u8 = 8;
    /// Type of a synchronization timer.
    pub const SYNCHRONIZATION_TIMER: u8 = 9;

    /// KMUTANT.MutantListEntry.
    pub const MUTANT_LIST: u64 = 0x18;
    /// KMUTANT.OwnerThread.
    pub const MUTANT_OWNER: u64 = 0x28;
    /// KMUTANT.Abandoned; ApcDisable follows.
    pub const MUTANT_ABANDONED: u64 = 0x30;
    /// Bytes of a KMUTANT.
    pub const MUTANT_SIZE: u64 = 0x38;

    /// KSEMAPHORE.Limit.
    pub const SEMAPHORE_LIMIT: u64 = 0x18;
    /// Bytes of a KSEMAPHORE.
    pub const SEMAPHORE_SIZE: u64 = 0x20;

    /// KTIMER.DueTime.
    pub const TIMER_DUE: u64 = 0x18;
    /// KTIMER.Dpc.
    pub const TIMER_DPC: u64 = 0x30;
    /// KTIMER.Period, milliseconds.
    pub const TIMER_PERIOD: u64 = 0x3C;
    /// Bytes of a KTIMER.
    pub const TIMER_SIZE: u64 = 0x40;
}

/// FAST_MUTEX, which a KGUARDED_MUTEX is too since Windows 8.
pub mod fast_mutex {
    /// Count: 1 while it is free.
    pub const COUNT: u64 = 0;
    /// Owner, a thread.
    pub const OWNER: u64 = 8;
    /// Contention.
    pub const CONTENTION: u64 = 0x10;
    /// Event, a KEVENT.
    pub const EVENT: u64 = 0x18;
    /// OldIrql.
    pub const OLD_IRQL: u64 = 0x30;
    /// Bytes of it.
    pub const SIZE: u64 = 0x38;
}

/// WORK_QUEUE_ITEM and, of our own making after it, IO_WORKITEM.
pub mod work {
    /// WorkerRoutine; List, before it, is null while it is not queued.
    pub const ROUTINE: u64 = 0x10;
    /// Parameter.
    pub const PARAMETER: u64 = 0x18;
    /// Bytes of a WORK_QUEUE_ITEM.
    pub const SIZE: u64 = 0x20;
    /// The object of an IO_WORKITEM.
    pub const IO_OBJECT: u64 = 0x28;
    /// Bytes of an IO_WORKITEM.
    pub const IO_SIZE: u64 = 0x40;
    /// MaximumWorkQueue: the queues are below it.
    pub const MAXIMUM_QUEUE: u64 = 7;
    /// CustomPriorityWorkQueue: a priority is added to it.
    pub const CUSTOM_PRIORITY: u64 = 32;
}

/// IO_REMOVE_LOCK.
pub mod remove_lock {
    /// IoCount; Removed, a byte, comes first.
    pub const COUNT: u64 = 0x4;
    /// RemoveEvent.
    pub const EVENT: u64 = 0x8;
    /// Bytes.
    pub const SIZE: u64 = 0x20;
}

/// SLIST_HEADER.
pub mod slist {
    /// Bits of the depth in the first half; a sequence number is above them.
    pub const DEPTH_BITS: u32 = 16;
    /// The second half: the first entry, and bits that are no part of it.
    pub const FIRST: u64 = 0x8;
    /// Those bits.
    pub const RESERVED: u64 = 0xf;
}

/// GENERAL_LOOKASIDE: what NPAGED_LOOKASIDE_LIST, PAGED_LOOKASIDE_LIST and
/// LOOKASIDE_LIST_EX are on x64. An SLIST_HEADER comes first.
pub mod lookaside {
    /// MaximumDepth; Depth is before it.
    pub const MAXIMUM_DEPTH: u64 = 0x12;
    /// Type.
    pub const TYPE: u64 = 0x24;
    /// Tag.
    pub const TAG: u64 = 0x28;
    /// Size.
    pub const ENTRY_SIZE: u64 = 0x2c;
    /// Allocate.
    pub const ALLOCATE: u64 = 0x30;
    /// Free.
    pub const FREE: u64 = 0x38;
    /// ListEntry.
    pub const LIST: u64 = 0x40;
    /// Bytes, without padding.
    pub const SIZE: u64 = 0x60;
    /// MaximumDepth of a new list.
    pub const LIMIT: u16 = 256;
}

/// KDPC.
pub mod kdpc {
    /// DpcObject, its type.
    pub const TYPE: u8 = 0x13;
    /// MediumImportance.
    pub const MEDIUM: u8 = 1;
    /// Importance.
    pub const IMPORTANCE: u64 = 1;
    /// DeferredRoutine.
    pub const ROUTINE: u64 = 0x18;
    /// DeferredContext.
    pub const CONTEXT: u64 = 0x20;
    /// SystemArgument1.
    pub const ARGUMENT1: u64 = 0x28;
    /// SystemArgument2.
    pub const ARGUMENT2: u64 = 0x30;
    /// DpcData: not null while it is queued.
    pub const DATA: u64 = 0x38;
    /// Bytes of it.
    pub const SIZE: u64 = 0x40;
}

/// DEVICE_OBJECT, FILE_OBJECT, IRP and IO_STACK_LOCATION.
pub mod io {
    /// IO_TYPE_DEVICE.
    pub const DEVICE_TYPE: u16 = 3;
    /// IO_TYPE_DRIVER.
    pub const DRIVER_TYPE: u16 = 4;
    /// Bytes of a DEVICE_OBJECT.
    pub const DEVICE_SIZE: u64 = 0x150;
    /// DEVICE_OBJECT.ReferenceCount.
    pub const DEVICE_REFERENCES: u64 = 4;
    /// DEVICE_OBJECT.DeviceType.
    pub const DEVICE_KIND: u64 = 0x48;
    /// DEVICE_OBJECT.StackSize.
    pub const DEVICE_STACK_SIZE: u64 = 0x4C;
    /// FILE_DEVICE_VIDEO.
    pub const FILE_DEVICE_VIDEO: u32 = 0x23;
    /// IO_TYPE_FILE.
    pub const FILE_TYPE: u16 = 5;
    /// Bytes of a FILE_OBJECT.
    pub const FILE_SIZE: u64 = 0xD8;
    /// FILE_OBJECT.DeviceObject.
    pub const FILE_DEVICE: u64 = 8;

    /// IO_TYPE_IRP.
    pub const IRP_TYPE: u16 = 6;
    /// Bytes of an IRP without its stack locations.
    pub const IRP_SIZE: u64 = 0xD0;
    /// IRP.IoStatus.
    pub const IRP_STATUS: u64 = 0x30;
    /// IRP.StackCount.
    pub const IRP_STACK_COUNT: u64 = 0x42;
    /// IRP.CurrentLocation.
    pub const IRP_LOCATION: u64 = 0x43;
    /// IRP.UserIosb.
    pub const IRP_USER_IOSB: u64 = 0x48;
    /// IRP.UserEvent.
    pub const IRP_USER_EVENT: u64 = 0x50;
    /// IRP.UserBuffer.
    pub const IRP_USER_BUFFER: u64 = 0x70;
    /// IRP.Tail.Overlay.Thread.
    pub const IRP_THREAD: u64 = 0x98;
    /// IRP.Tail.Overlay.CurrentStackLocation.
    pub const IRP_CURRENT: u64 = 0xB8;

    /// Bytes of an IO_STACK_LOCATION.
    pub const STACK_SIZE: u64 = 0x48;
    /// IO_STACK_LOCATION.MajorFunction.
    pub const STACK_MAJOR: u64 = 0;
    /// Parameters.DeviceIoControl.OutputBufferLength.
    pub const STACK_OUTPUT_LENGTH: u64 = 8;
    /// Parameters.DeviceIoControl.InputBufferLength.
    pub const STACK_INPUT_LENGTH: u64 = 0x10;
    /// Parameters.DeviceIoControl.IoControlCode.
    pub const STACK_CODE: u64 = 0x18;
    /// Parameters.DeviceIoControl.Type3InputBuffer.
    pub const STACK_INPUT: u64 = 0x20;
    /// IO_STACK_LOCATION.DeviceObject.
    pub const STACK_DEVICE: u64 = 0x28;
    /// IRP_MJ_DEVICE_CONTROL.
    pub const DEVICE_CONTROL: u8 = 0x0E;
    /// IRP_MJ_INTERNAL_DEVICE_CONTROL.
    pub const INTERNAL_DEVICE_CONTROL: u8 = 0x0F;
    /// METHOD_NEITHER, the low two bits of a control code.
    pub const METHOD_NEITHER: u32 = 3;

    /// Asks dxgkrnl for the registration routine of full WDDM drivers.
    pub const REGISTER_FULL: u32 = 0x0023_003F;
    /// The same, for display-only drivers.
    pub const REGISTER_DISPLAY_ONLY: u32 = 0x0023_0047;
}

/// NTSTATUS values beyond those of [`crate::status`] (ntstatus.h).
pub mod status {
    /// STATUS_INVALID_INFO_CLASS.
    pub const INVALID_INFO_CLASS: u32 = 0xC000_0003;
    /// STATUS_INVALID_DEVICE_REQUEST.
    pub const INVALID_DEVICE_REQUEST: u32 = 0xC000_0010;
    /// STATUS_OBJECT_TYPE_MISMATCH.
    pub const OBJECT_TYPE_MISMATCH: u32 = 0xC000_0024;
    /// STATUS_OBJECT_NAME_INVALID.
    pub const OBJECT_NAME_INVALID: u32 = 0xC000_0033;
    /// STATUS_OBJECT_PATH_SYNTAX_BAD.
    pub const OBJECT_PATH_SYNTAX_BAD: u32 = 0xC000_003B;
}

/// Bug check codes (the debugger's documentation lists them).
pub mod stop {
    /// IRQL_NOT_LESS_OR_EQUAL.
    pub const IRQL_NOT_LESS_OR_EQUAL: u32 = 0x0A;
    /// SPIN_LOCK_ALREADY_OWNED.
    pub const SPIN_LOCK_ALREADY_OWNED: u32 = 0x0F;
    /// SPIN_LOCK_NOT_OWNED.
    pub const SPIN_LOCK_NOT_OWNED: u32 = 0x10;
    /// REFERENCE_BY_POINTER.
    pub const REFERENCE_BY_POINTER: u32 = 0x18;
    /// NO_MORE_IRP_STACK_LOCATIONS.
    pub const NO_MORE_IRP_STACK_LOCATIONS: u32 = 0x35;
    /// MULTIPLE_IRP_COMPLETE_REQUESTS.
    pub const MULTIPLE_IRP_COMPLETE_REQUESTS: u32 = 0x44;
    /// DRIVER_VERIFIER_DETECTED_VIOLATION.
    pub const VERIFIER: u32 = 0xC4;
    /// KERNEL_SECURITY_CHECK_FAILURE.
    pub const SECURITY_CHECK: u32 = 0x139;
}
