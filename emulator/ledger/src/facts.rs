//! What happened, in numbers.

use serde::Serialize;

/// Sums over the events so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Virtual time of the latest event, nanoseconds.
    pub time: u64,
    /// Events.
    pub events: u64,
    /// Allocations made.
    pub allocations: u64,
    /// Pages given out, counting each time.
    pub pages: u64,
    /// Allocations not freed yet.
    pub live_allocations: u64,
    /// Pages of those.
    pub live_pages: u64,
    /// Accesses of devices to memory.
    pub accesses: u64,
    /// Bytes that devices read.
    pub bytes_read: u64,
    /// Bytes that devices wrote.
    pub bytes_written: u64,
    /// Accesses that the IOMMU refused.
    pub refused: u64,
    /// Accesses that were parted into issue and landing.
    pub in_flight: u64,
    /// Faults.
    pub faults: u64,
    /// Faults that the IOMMU's own records had no room for.
    pub faults_unrecorded: u64,
    /// Second-level entries written.
    pub table_writes: u64,
    /// Invalidations.
    pub invalidations: u64,
    /// Doorbells.
    pub notifications: u64,
    /// Commands that devices took.
    pub commands: u64,
    /// Interrupts that devices sent.
    pub interrupts: u64,
    /// Calls of the driver.
    pub calls: u64,
    /// Other traps of the driver.
    pub traps: u64,
    /// Choices made.
    pub choices: u64,
    /// Frames that reached a scanout.
    pub frames: u64,
    /// Lines that the driver printed.
    pub prints: u64,
    /// Pages too many, or too high, to be watched.
    pub unwatched_pages: u64,
    /// What the guest told of its memory.
    pub claims: u64,
    /// Events that contradict earlier ones and were left aside.
    pub contradictions: u64,
    /// Breaches of rules whose finding has an unknown identifier.
    pub unknown_findings: u64,
    /// Findings beyond the limit of distinct ones.
    pub findings_omitted: u64,
}
