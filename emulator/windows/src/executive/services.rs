//! The routines, by the name a driver imports them under.

use super::{Service, bugcheck, dispatcher, dpc, fast_mutex, io, irql, list, mutex, object};
use super::{
    print, registry, remove_lock, spinlock, strings, thread, time, timer, trace, version, wait,
    work,
};

/// A row: the routine's own errors are outcomes too.
macro_rules! row {
    ($name:literal, $routine:path) => {
        ($name, |state, platform, call| {
            $routine(state, platform, call).unwrap_or_else(|outcome| outcome)
        })
    };
}

/// Every routine of the executive, sorted by nothing in particular; names are
/// unique.
pub const SERVICES: &[(&str, Service)] = &[
    // IRQL
    row!("KeGetCurrentIrql", irql::get_current),
    row!("KfRaiseIrql", irql::raise),
    row!("KeRaiseIrqlToDpcLevel", irql::raise_to_dpc),
    row!("KeLowerIrql", irql::lower),
    row!("KfLowerIrql", irql::lower),
    row!("KeEnterCriticalRegion", mutex::enter_critical),
    row!("KeLeaveCriticalRegion", mutex::leave_critical),
    row!("KeEnterGuardedRegion", mutex::enter_guarded),
    row!("KeLeaveGuardedRegion", mutex::leave_guarded),
    row!("KeAreApcsDisabled", mutex::are_apcs_disabled),
    row!("KeAreAllApcsDisabled", mutex::are_all_apcs_disabled),
    // Spin locks
    row!("KeInitializeSpinLock", spinlock::initialize),
    row!("KeAcquireSpinLockRaiseToDpc", spinlock::acquire),
    row!("KeReleaseSpinLock", spinlock::release),
    row!("KeAcquireSpinLockAtDpcLevel", spinlock::acquire_at_dpc),
    row!("KeReleaseSpinLockFromDpcLevel", spinlock::release_from_dpc),
    row!("KeTryToAcquireSpinLockAtDpcLevel", spinlock::try_acquire),
    row!("KeAcquireInStackQueuedSpinLock", spinlock::acquire_queued),
    row!("KeReleaseInStackQueuedSpinLock", spinlock::release_queued),
    row!("ExInterlockedInsertHeadList", list::insert_head),
    row!("ExInterlockedInsertTailList", list::insert_tail),
    row!("ExInterlockedRemoveHeadList", list::remove_head),
    row!("ExpInterlockedPushEntrySList", list::push_sequenced),
    row!("ExpInterlockedPopEntrySList", list::pop_sequenced),
    row!("ExpInterlockedFlushSList", list::flush_sequenced),
    row!("ExQueryDepthSList", list::sequenced_depth),
    // Fast and guarded mutexes
    row!("ExAcquireFastMutex", fast_mutex::acquire),
    row!("ExAcquireFastMutexUnsafe", fast_mutex::acquire_unsafe),
    row!("ExTryToAcquireFastMutex", fast_mutex::try_acquire),
    row!("ExReleaseFastMutex", fast_mutex::release),
    row!("ExReleaseFastMutexUnsafe", fast_mutex::release_unsafe),
    row!("KeInitializeGuardedMutex", fast_mutex::initialize),
    row!("KeAcquireGuardedMutex", fast_mutex::acquire_guarded),
    row!("KeAcquireGuardedMutexUnsafe", fast_mutex::acquire_unsafe),
    row!(
        "KeTryToAcquireGuardedMutex",
        fast_mutex::try_acquire_guarded
    ),
    row!("KeReleaseGuardedMutex", fast_mutex::release_guarded),
    row!("KeReleaseGuardedMutexUnsafe", fast_mutex::release_unsafe),
    // Dispatcher objects
    row!("KeInitializeEvent", dispatcher::initialize_event),
    row!("KeSetEvent", dispatcher::set_event),
    row!("KeClearEvent", dispatcher::clear_event),
    row!("KeResetEvent", dispatcher::reset_event),
    row!("KeReadStateEvent", dispatcher::read_state),
    row!("KeInitializeSemaphore", dispatcher::initialize_semaphore),
    row!("KeReleaseSemaphore", dispatcher::release_semaphore),
    row!("KeReadStateSemaphore", dispatcher::read_state),
    row!("KeInitializeMutex", mutex::initialize),
    row!("KeReleaseMutex", mutex::release),
    row!("KeReadStateMutex", dispatcher::read_state),
    row!("KeWaitForSingleObject", wait::single),
    row!("KeWaitForMutexObject", wait::single),
    row!("KeWaitForMultipleObjects", wait::multiple),
    row!("KeDelayExecutionThread", wait::delay),
    row!("IoCreateNotificationEvent", wait::create_notification_event),
    row!(
        "IoCreateSynchronizationEvent",
        wait::create_synchronization_event
    ),
    // Time
    row!("KeStallExecutionProcessor", time::stall),
    row!("KeQueryPerformanceCounter", time::performance_counter),
    row!("KeQuerySystemTime", time::query_system_time),
    row!("KeQuerySystemTimePrecise", time::query_system_time),
    row!("KeQueryInterruptTime", time::query_interrupt_time),
    row!(
        "KeQueryInterruptTimePrecise",
        time::query_interrupt_time_precise
    ),
    row!("KeQueryUnbiasedInterruptTime", time::query_interrupt_time),
    row!("KeQueryTickCount", time::query_tick_count),
    row!("KeQueryTimeIncrement", time::query_time_increment),
    row!("KeInitializeTimer", timer::initialize),
    row!("KeInitializeTimerEx", timer::initialize_ex),
    row!("KeSetTimer", timer::set),
    row!("KeSetTimerEx", timer::set_ex),
    row!("KeCancelTimer", timer::cancel),
    row!("KeReadStateTimer", dispatcher::read_state),
    // DPCs
    row!("KeInitializeDpc", dpc::initialize),
    row!("KeInsertQueueDpc", dpc::insert),
    row!("KeRemoveQueueDpc", dpc::remove),
    row!("KeFlushQueuedDpcs", dpc::flush),
    row!("KeSetImportanceDpc", dpc::set_importance),
    // Threads
    row!("PsCreateSystemThread", thread::create),
    row!("PsTerminateSystemThread", thread::terminate),
    row!("KeGetCurrentThread", thread::current),
    row!("PsGetCurrentThread", thread::current),
    row!("PsGetCurrentThreadId", thread::current_id),
    row!("PsGetCurrentProcessId", thread::current_process_id),
    row!("KeSetPriorityThread", thread::set_priority),
    row!("KeQueryPriorityThread", thread::query_priority),
    row!("IoGetStackLimits", thread::stack_limits),
    row!("KeGetCurrentProcessorNumberEx", thread::processor_number),
    row!("KeQueryActiveProcessorCount", thread::processor_count),
    row!("KeQueryActiveProcessorCountEx", thread::processor_count),
    row!("KeQueryMaximumProcessorCount", thread::processor_count),
    row!("KeQueryMaximumProcessorCountEx", thread::processor_count),
    row!("ExGetPreviousMode", thread::previous_mode),
    // Objects
    row!("ZwClose", object::close),
    row!("ObCloseHandle", object::close),
    row!("ObReferenceObjectByHandle", object::reference_by_handle),
    row!("ObReferenceObjectByPointer", object::reference_by_pointer),
    row!("ObfReferenceObject", object::reference),
    row!("ObfDereferenceObject", object::dereference),
    // Registry
    row!("ZwOpenKey", registry::open_key),
    row!("ZwCreateKey", registry::create_key),
    row!("ZwFlushKey", registry::flush_key),
    row!("ZwQueryValueKey", registry::query_value),
    row!("ZwSetValueKey", registry::set_value),
    row!("ZwDeleteValueKey", registry::delete_value),
    row!("IoOpenDeviceRegistryKey", registry::open_device_key),
    // Strings
    row!("RtlInitUnicodeString", strings::init_unicode),
    row!("RtlInitAnsiString", strings::init_ansi),
    row!("RtlInitString", strings::init_ansi),
    row!("RtlAnsiStringToUnicodeString", strings::ansi_to_unicode),
    row!("RtlFreeUnicodeString", strings::free_unicode),
    row!("RtlIntegerToUnicodeString", strings::integer_to_unicode),
    row!("RtlCopyUnicodeString", strings::copy_unicode),
    row!("RtlAppendUnicodeToString", strings::append_unicode),
    row!("RtlEqualUnicodeString", strings::equal_unicode),
    row!("RtlGetVersion", version::get),
    row!("PsGetVersion", version::ps_get),
    // I/O manager
    row!("ZwLoadDriver", io::load_driver),
    row!("ZwUnloadDriver", io::unload_driver),
    row!("IoGetDeviceObjectPointer", io::get_device),
    row!("IoBuildDeviceIoControlRequest", io::build_request),
    row!("IofCallDriver", io::call_driver),
    // Remove locks
    row!("IoInitializeRemoveLockEx", remove_lock::initialize),
    row!("IoAcquireRemoveLockEx", remove_lock::acquire),
    row!("IoReleaseRemoveLockEx", remove_lock::release),
    row!(
        "IoReleaseRemoveLockAndWaitEx",
        remove_lock::release_and_wait
    ),
    // Work items
    row!("IoAllocateWorkItem", work::allocate),
    row!("IoFreeWorkItem", work::free),
    row!("IoQueueWorkItem", work::queue_io),
    row!("IoQueueWorkItemEx", work::queue_io_ex),
    row!("ExQueueWorkItem", work::queue_ex),
    // Printing and tracing
    row!("DbgPrint", print::dbg_print),
    row!("DbgPrintEx", print::dbg_print_ex),
    row!("vDbgPrintEx", print::v_dbg_print_ex),
    row!("vDbgPrintExWithPrefix", print::v_dbg_print_ex_with_prefix),
    row!("_snprintf", print::snprintf),
    row!("_vsnprintf", print::vsnprintf),
    row!("_snwprintf", print::snwprintf),
    row!("_vsnwprintf", print::vsnwprintf),
    row!("IoWMIRegistrationControl", trace::succeed),
    row!("WmiTraceMessage", trace::succeed),
    row!("WmiQueryTraceInformation", trace::unsupported),
    row!("EtwRegister", trace::etw_register),
    row!("EtwUnregister", trace::succeed),
    row!("EtwWrite", trace::succeed),
    row!("EtwWriteTransfer", trace::succeed),
    row!("EtwSetInformation", trace::succeed),
    row!("EtwEventEnabled", trace::disabled),
    row!("EtwProviderEnabled", trace::disabled),
    // The driver gives up
    row!("KeBugCheck", bugcheck::plain),
    row!("KeBugCheckEx", bugcheck::with_parameters),
];
