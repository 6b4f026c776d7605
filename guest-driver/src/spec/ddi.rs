//! dispmprt.h: DRIVER_INITIALIZATION_DATA, the table of functions that a
//! full WDDM miniport registers, x64.
//!
//! Offsets up to 0x338 and from 0x450 follow public symbol-derived dumps;
//! the slots between them follow the documented order of the fields and
//! fill the gap exactly.

use core::ffi::c_void;

use super::dxgk::Interface;
use super::layout;
use super::nt::NtStatus;

/// An argument: the adapter's context, a handle, a structure or a number;
/// all take one register or stack cell on x64.
pub type Argument = *mut c_void;
/// A slot of one argument.
pub type Ddi1 = unsafe extern "system" fn(Argument) -> NtStatus;
/// A slot of two arguments, the usual form: adapter and structure.
pub type Ddi2 = unsafe extern "system" fn(Argument, Argument) -> NtStatus;
/// A slot of three arguments.
pub type Ddi3 = unsafe extern "system" fn(Argument, Argument, Argument) -> NtStatus;
/// A slot of four arguments.
pub type Ddi4 = unsafe extern "system" fn(Argument, Argument, Argument, Argument) -> NtStatus;
/// A slot of five arguments.
pub type Ddi5 =
    unsafe extern "system" fn(Argument, Argument, Argument, Argument, Argument) -> NtStatus;
/// A slot of six arguments.
pub type Ddi6 = unsafe extern "system" fn(
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
) -> NtStatus;
/// A slot of seven arguments.
pub type Ddi7 = unsafe extern "system" fn(
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
) -> NtStatus;
/// DxgkDdiAddDevice: physical device object in, context out.
pub type AddDevice = unsafe extern "system" fn(*mut c_void, *mut *mut c_void) -> NtStatus;
/// DxgkDdiStartDevice: context, start information, callbacks; numbers of
/// sources and children out.
pub type StartDevice = unsafe extern "system" fn(
    *mut c_void,
    *const c_void,
    *const Interface,
    *mut u32,
    *mut u32,
) -> NtStatus;
/// DxgkDdiInterruptRoutine: context and message; TRUE when it was ours.
pub type InterruptRoutine = unsafe extern "system" fn(*mut c_void, u32) -> u8;
/// DxgkDdiDpcRoutine and DxgkDdiResetDevice.
pub type DpcRoutine = unsafe extern "system" fn(*mut c_void);
/// DxgkDdiUnload.
pub type Unload = unsafe extern "system" fn();

/// DRIVER_INITIALIZATION_DATA (0x4D0 bytes). Slots are named after the
/// DxgkDdi function; `mpo` is MultiPlaneOverlay.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InitializationData {
    /// DXGKDDI_INTERFACE_VERSION_*.
    pub version: u32,
    /// +0x008.
    pub add_device: Option<AddDevice>,
    /// +0x010.
    pub start_device: Option<StartDevice>,
    /// +0x018.
    pub stop_device: Option<Ddi1>,
    /// +0x020.
    pub remove_device: Option<Ddi1>,
    /// +0x028.
    pub dispatch_io_request: Option<Ddi3>,
    /// +0x030.
    pub interrupt_routine: Option<InterruptRoutine>,
    /// +0x038.
    pub dpc_routine: Option<DpcRoutine>,
    /// +0x040.
    pub query_child_relations: Option<Ddi3>,
    /// +0x048.
    pub query_child_status: Option<Ddi3>,
    /// +0x050.
    pub query_device_descriptor: Option<Ddi3>,
    /// +0x058.
    pub set_power_state: Option<Ddi4>,
    /// +0x060.
    pub notify_acpi_event: Option<Ddi5>,
    /// +0x068.
    pub reset_device: Option<DpcRoutine>,
    /// +0x070.
    pub unload: Option<Unload>,
    /// +0x078.
    pub query_interface: Option<Ddi2>,
    /// +0x080.
    pub control_etw_logging: Option<Ddi3>,
    /// +0x088.
    pub query_adapter_info: Option<Ddi2>,
    /// +0x090.
    pub create_device: Option<Ddi2>,
    /// +0x098.
    pub create_allocation: Option<Ddi2>,
    /// +0x0A0.
    pub destroy_allocation: Option<Ddi2>,
    /// +0x0A8.
    pub describe_allocation: Option<Ddi2>,
    /// +0x0B0.
    pub get_standard_allocation_driver_data: Option<Ddi2>,
    /// +0x0B8.
    pub acquire_swizzling_range: Option<Ddi2>,
    /// +0x0C0.
    pub release_swizzling_range: Option<Ddi2>,
    /// +0x0C8.
    pub patch: Option<Ddi2>,
    /// +0x0D0.
    pub submit_command: Option<Ddi2>,
    /// +0x0D8.
    pub preempt_command: Option<Ddi2>,
    /// +0x0E0.
    pub build_paging_buffer: Option<Ddi2>,
    /// +0x0E8.
    pub set_palette: Option<Ddi2>,
    /// +0x0F0.
    pub set_pointer_position: Option<Ddi2>,
    /// +0x0F8.
    pub set_pointer_shape: Option<Ddi2>,
    /// +0x100.
    pub reset_from_timeout: Option<Ddi1>,
    /// +0x108.
    pub restart_from_timeout: Option<Ddi1>,
    /// +0x110.
    pub escape: Option<Ddi2>,
    /// +0x118.
    pub collect_dbg_info: Option<Ddi2>,
    /// +0x120.
    pub query_current_fence: Option<Ddi2>,
    /// +0x128.
    pub is_supported_vidpn: Option<Ddi2>,
    /// +0x130.
    pub recommend_functional_vidpn: Option<Ddi2>,
    /// +0x138.
    pub enum_vidpn_cofunc_modality: Option<Ddi2>,
    /// +0x140.
    pub set_vidpn_source_address: Option<Ddi2>,
    /// +0x148.
    pub set_vidpn_source_visibility: Option<Ddi2>,
    /// +0x150.
    pub commit_vidpn: Option<Ddi2>,
    /// +0x158.
    pub update_active_vidpn_present_path: Option<Ddi2>,
    /// +0x160.
    pub recommend_monitor_modes: Option<Ddi2>,
    /// +0x168.
    pub recommend_vidpn_topology: Option<Ddi2>,
    /// +0x170.
    pub get_scan_line: Option<Ddi2>,
    /// +0x178.
    pub stop_capture: Option<Ddi2>,
    /// +0x180.
    pub control_interrupt: Option<Ddi3>,
    /// +0x188.
    pub create_overlay: Option<Ddi2>,
    /// +0x190.
    pub destroy_device: Option<Ddi1>,
    /// +0x198.
    pub open_allocation: Option<Ddi2>,
    /// +0x1A0.
    pub close_allocation: Option<Ddi2>,
    /// +0x1A8.
    pub render: Option<Ddi2>,
    /// +0x1B0.
    pub present: Option<Ddi2>,
    /// +0x1B8.
    pub update_overlay: Option<Ddi2>,
    /// +0x1C0.
    pub flip_overlay: Option<Ddi2>,
    /// +0x1C8.
    pub destroy_overlay: Option<Ddi1>,
    /// +0x1D0.
    pub create_context: Option<Ddi2>,
    /// +0x1D8.
    pub destroy_context: Option<Ddi1>,
    /// +0x1E0.
    pub link_device: Option<Ddi3>,
    /// +0x1E8.
    pub set_display_private_driver_format: Option<Ddi2>,
    /// Reserved.
    pub reserved_1f0: [usize; 6],
    /// +0x220.
    pub render_km: Option<Ddi2>,
    /// Reserved.
    pub reserved_228: [usize; 1],
    /// +0x230.
    pub query_vidpn_hw_capability: Option<Ddi2>,
    /// +0x238.
    pub set_power_component_fstate: Option<Ddi3>,
    /// +0x240.
    pub query_dependent_engine_group: Option<Ddi2>,
    /// +0x248.
    pub query_engine_status: Option<Ddi2>,
    /// +0x250.
    pub reset_engine: Option<Ddi2>,
    /// +0x258.
    pub stop_device_and_release_post_display_ownership: Option<Ddi3>,
    /// +0x260.
    pub system_display_enable: Option<Ddi6>,
    /// +0x268.
    pub system_display_write: Option<Ddi7>,
    /// +0x270.
    pub cancel_command: Option<Ddi2>,
    /// +0x278.
    pub get_child_container_id: Option<Ddi3>,
    /// +0x280.
    pub power_runtime_control_request: Option<Ddi7>,
    /// +0x288.
    pub set_vidpn_source_address_with_mpo: Option<Ddi2>,
    /// +0x290.
    pub notify_surprise_removal: Option<Ddi2>,
    /// +0x298.
    pub get_node_metadata: Option<Ddi3>,
    /// +0x2A0.
    pub set_power_pstate: Option<Ddi3>,
    /// +0x2A8.
    pub control_interrupt2: Option<Ddi2>,
    /// +0x2B0.
    pub check_mpo_support: Option<Ddi2>,
    /// +0x2B8.
    pub calibrate_gpu_clock: Option<Ddi4>,
    /// +0x2C0.
    pub format_history_buffer: Option<Ddi2>,
    /// +0x2C8.
    pub render_gdi: Option<Ddi2>,
    /// +0x2D0.
    pub submit_command_virtual: Option<Ddi2>,
    /// +0x2D8.
    pub set_root_page_table: Option<Ddi2>,
    /// +0x2E0.
    pub get_root_page_table_size: Option<Ddi2>,
    /// +0x2E8.
    pub map_cpu_host_aperture: Option<Ddi2>,
    /// +0x2F0.
    pub unmap_cpu_host_aperture: Option<Ddi2>,
    /// +0x2F8.
    pub check_mpo_support2: Option<Ddi2>,
    /// +0x300.
    pub create_process: Option<Ddi2>,
    /// +0x308.
    pub destroy_process: Option<Ddi2>,
    /// +0x310.
    pub set_vidpn_source_address_with_mpo2: Option<Ddi2>,
    /// Reserved.
    pub reserved_318: [usize; 2],
    /// +0x328.
    pub power_runtime_set_device_handle: Option<Ddi2>,
    /// +0x330.
    pub set_stable_power_state: Option<Ddi2>,
    /// +0x338.
    pub set_video_protected_region: Option<Ddi2>,
    /// +0x340.
    pub check_mpo_support3: Option<Ddi2>,
    /// +0x348.
    pub set_vidpn_source_address_with_mpo3: Option<Ddi2>,
    /// +0x350.
    pub post_mpo_present: Option<Ddi2>,
    /// +0x358.
    pub validate_update_allocation_property: Option<Ddi2>,
    /// +0x360.
    pub control_mode_behavior: Option<Ddi2>,
    /// +0x368.
    pub update_monitor_link_info: Option<Ddi2>,
    /// +0x370.
    pub create_hw_context: Option<Ddi2>,
    /// +0x378.
    pub destroy_hw_context: Option<Ddi1>,
    /// +0x380.
    pub create_hw_queue: Option<Ddi2>,
    /// +0x388.
    pub destroy_hw_queue: Option<Ddi1>,
    /// +0x390.
    pub submit_command_to_hw_queue: Option<Ddi2>,
    /// +0x398.
    pub switch_to_hw_context_list: Option<Ddi2>,
    /// +0x3A0.
    pub reset_hw_engine: Option<Ddi2>,
    /// +0x3A8.
    pub create_periodic_frame_notification: Option<Ddi2>,
    /// +0x3B0.
    pub destroy_periodic_frame_notification: Option<Ddi2>,
    /// +0x3B8.
    pub set_timings_from_vidpn: Option<Ddi2>,
    /// +0x3C0.
    pub set_target_gamma: Option<Ddi2>,
    /// +0x3C8.
    pub set_target_content_type: Option<Ddi2>,
    /// +0x3D0.
    pub set_target_analog_copy_protection: Option<Ddi2>,
    /// +0x3D8.
    pub set_target_adjusted_colorimetry: Option<Ddi2>,
    /// +0x3E0.
    pub display_detect_control: Option<Ddi2>,
    /// +0x3E8.
    pub query_connection_change: Option<Ddi2>,
    /// +0x3F0.
    pub exchange_pre_start_info: Option<Ddi2>,
    /// +0x3F8.
    pub get_mpo_caps: Option<Ddi2>,
    /// +0x400.
    pub get_post_composition_caps: Option<Ddi2>,
    /// +0x408.
    pub update_hw_context_state: Option<Ddi2>,
    /// +0x410.
    pub create_protected_session: Option<Ddi2>,
    /// +0x418.
    pub destroy_protected_session: Option<Ddi2>,
    /// +0x420.
    pub set_scheduling_log_buffer: Option<Ddi2>,
    /// +0x428.
    pub setup_priority_bands: Option<Ddi2>,
    /// +0x430.
    pub notify_focus_present: Option<Ddi2>,
    /// +0x438.
    pub set_context_scheduling_properties: Option<Ddi2>,
    /// +0x440.
    pub suspend_context: Option<Ddi2>,
    /// +0x448.
    pub resume_context: Option<Ddi2>,
    /// +0x450.
    pub set_virtual_machine_data: Option<Ddi2>,
    /// +0x458.
    pub begin_exclusive_access: Option<Ddi2>,
    /// +0x460.
    pub end_exclusive_access: Option<Ddi2>,
    /// +0x468.
    pub query_diagnostic_types_support: Option<Ddi2>,
    /// +0x470.
    pub control_diagnostic_reporting: Option<Ddi2>,
    /// +0x478.
    pub resume_hw_engine: Option<Ddi2>,
    /// Slots of WDDM 2.5 and later, null in a 2.4 table.
    pub later: [usize; 10],
}
layout!(
    InitializationData, 0x4D0,
    add_device: 0x008,
    start_device: 0x010,
    stop_device: 0x018,
    remove_device: 0x020,
    dispatch_io_request: 0x028,
    interrupt_routine: 0x030,
    dpc_routine: 0x038,
    query_child_relations: 0x040,
    query_child_status: 0x048,
    query_device_descriptor: 0x050,
    set_power_state: 0x058,
    notify_acpi_event: 0x060,
    reset_device: 0x068,
    unload: 0x070,
    query_interface: 0x078,
    control_etw_logging: 0x080,
    query_adapter_info: 0x088,
    create_device: 0x090,
    create_allocation: 0x098,
    destroy_allocation: 0x0A0,
    describe_allocation: 0x0A8,
    get_standard_allocation_driver_data: 0x0B0,
    acquire_swizzling_range: 0x0B8,
    release_swizzling_range: 0x0C0,
    patch: 0x0C8,
    submit_command: 0x0D0,
    preempt_command: 0x0D8,
    build_paging_buffer: 0x0E0,
    set_palette: 0x0E8,
    set_pointer_position: 0x0F0,
    set_pointer_shape: 0x0F8,
    reset_from_timeout: 0x100,
    restart_from_timeout: 0x108,
    escape: 0x110,
    collect_dbg_info: 0x118,
    query_current_fence: 0x120,
    is_supported_vidpn: 0x128,
    recommend_functional_vidpn: 0x130,
    enum_vidpn_cofunc_modality: 0x138,
    set_vidpn_source_address: 0x140,
    set_vidpn_source_visibility: 0x148,
    commit_vidpn: 0x150,
    update_active_vidpn_present_path: 0x158,
    recommend_monitor_modes: 0x160,
    recommend_vidpn_topology: 0x168,
    get_scan_line: 0x170,
    stop_capture: 0x178,
    control_interrupt: 0x180,
    create_overlay: 0x188,
    destroy_device: 0x190,
    open_allocation: 0x198,
    close_allocation: 0x1A0,
    render: 0x1A8,
    present: 0x1B0,
    update_overlay: 0x1B8,
    flip_overlay: 0x1C0,
    destroy_overlay: 0x1C8,
    create_context: 0x1D0,
    destroy_context: 0x1D8,
    link_device: 0x1E0,
    set_display_private_driver_format: 0x1E8,
    reserved_1f0: 0x1F0,
    render_km: 0x220,
    reserved_228: 0x228,
    query_vidpn_hw_capability: 0x230,
    set_power_component_fstate: 0x238,
    query_dependent_engine_group: 0x240,
    query_engine_status: 0x248,
    reset_engine: 0x250,
    stop_device_and_release_post_display_ownership: 0x258,
    system_display_enable: 0x260,
    system_display_write: 0x268,
    cancel_command: 0x270,
    get_child_container_id: 0x278,
    power_runtime_control_request: 0x280,
    set_vidpn_source_address_with_mpo: 0x288,
    notify_surprise_removal: 0x290,
    get_node_metadata: 0x298,
    set_power_pstate: 0x2A0,
    control_interrupt2: 0x2A8,
    check_mpo_support: 0x2B0,
    calibrate_gpu_clock: 0x2B8,
    format_history_buffer: 0x2C0,
    render_gdi: 0x2C8,
    submit_command_virtual: 0x2D0,
    set_root_page_table: 0x2D8,
    get_root_page_table_size: 0x2E0,
    map_cpu_host_aperture: 0x2E8,
    unmap_cpu_host_aperture: 0x2F0,
    check_mpo_support2: 0x2F8,
    create_process: 0x300,
    destroy_process: 0x308,
    set_vidpn_source_address_with_mpo2: 0x310,
    reserved_318: 0x318,
    power_runtime_set_device_handle: 0x328,
    set_stable_power_state: 0x330,
    set_video_protected_region: 0x338,
    check_mpo_support3: 0x340,
    set_vidpn_source_address_with_mpo3: 0x348,
    post_mpo_present: 0x350,
    validate_update_allocation_property: 0x358,
    control_mode_behavior: 0x360,
    update_monitor_link_info: 0x368,
    create_hw_context: 0x370,
    destroy_hw_context: 0x378,
    create_hw_queue: 0x380,
    destroy_hw_queue: 0x388,
    submit_command_to_hw_queue: 0x390,
    switch_to_hw_context_list: 0x398,
    reset_hw_engine: 0x3A0,
    create_periodic_frame_notification: 0x3A8,
    destroy_periodic_frame_notification: 0x3B0,
    set_timings_from_vidpn: 0x3B8,
    set_target_gamma: 0x3C0,
    set_target_content_type: 0x3C8,
    set_target_analog_copy_protection: 0x3D0,
    set_target_adjusted_colorimetry: 0x3D8,
    display_detect_control: 0x3E0,
    query_connection_change: 0x3E8,
    exchange_pre_start_info: 0x3F0,
    get_mpo_caps: 0x3F8,
    get_post_composition_caps: 0x400,
    update_hw_context_state: 0x408,
    create_protected_session: 0x410,
    destroy_protected_session: 0x418,
    set_scheduling_log_buffer: 0x420,
    setup_priority_bands: 0x428,
    notify_focus_present: 0x430,
    set_context_scheduling_properties: 0x438,
    suspend_context: 0x440,
    resume_context: 0x448,
    set_virtual_machine_data: 0x450,
    begin_exclusive_access: 0x458,
    end_exclusive_access: 0x460,
    query_diagnostic_types_support: 0x468,
    control_diagnostic_reporting: 0x470,
    resume_hw_engine: 0x478,
    later: 0x480,
);
