//! The steps of a workload, and which of them can be.

use crate::answer::Hex;
use crate::plan::PlanError;
use serde::{Deserialize, Serialize};

/// Largest width or height of a frame, pixels.
pub const MAX_FRAME_SIDE: u32 = 4096;
/// Scanouts that a step can name: as many as a virtio-gpu can have.
pub const MAX_SCANOUTS: u32 = 16;
/// Pixels a side of a cursor.
const CURSOR_SIDE: u32 = 64;

/// A power state of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// D3: the device forgets what it knew.
    Off,
    /// D0.
    On,
}

/// One thing that the machine makes the driver do, through its Escape
/// interface or an entry point. Resources are counted from 0 in the order of
/// their creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(
    tag = "do",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum Step {
    /// Create a resource of this size in pixels and show it.
    Create {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
        /// On which scanout.
        #[serde(default)]
        scanout: u32,
    },
    /// The same as a blob in guest memory, which the display is fed from.
    CreateBlob {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
        /// On which scanout.
        #[serde(default)]
        scanout: u32,
    },
    /// Draw and present the frame of the seed plus `frame`.
    Present {
        /// Which resource.
        #[serde(default)]
        resource: u32,
        /// Added to the scenario's seed.
        #[serde(default)]
        frame: u64,
    },
    /// Wait until the resource's frames are done.
    Wait {
        /// Which resource.
        #[serde(default)]
        resource: u32,
    },
    /// Free the resource.
    Free {
        /// Which resource.
        #[serde(default)]
        resource: u32,
    },
    /// Give the resource another size.
    Resize {
        /// Which resource.
        #[serde(default)]
        resource: u32,
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Show the resource on a scanout.
    Scanout {
        /// Which resource.
        #[serde(default)]
        resource: u32,
        /// Which scanout.
        scanout: u32,
    },
    /// Turn a scanout off.
    ScanoutOff {
        /// Which scanout.
        #[serde(default)]
        scanout: u32,
    },
    /// Ask what is connected to a scanout.
    Display {
        /// Which scanout.
        #[serde(default)]
        scanout: u32,
    },
    /// Read the EDID of a scanout's display.
    Edid {
        /// Which scanout.
        #[serde(default)]
        scanout: u32,
    },
    /// Draw the cursor of the seed plus `frame` and show it.
    Cursor {
        /// On which scanout.
        #[serde(default)]
        scanout: u32,
        /// Added to the scenario's seed.
        #[serde(default)]
        frame: u64,
        /// Where its hot spot is, from the left.
        #[serde(default)]
        x: i32,
        /// The same from the top.
        #[serde(default)]
        y: i32,
        /// Which pixel of it is the hot spot, from the left.
        #[serde(default)]
        hot_x: u32,
        /// The same from the top.
        #[serde(default)]
        hot_y: u32,
    },
    /// Move the cursor.
    CursorMove {
        /// Of which scanout.
        #[serde(default)]
        scanout: u32,
        /// Where its hot spot is, from the left.
        x: i32,
        /// The same from the top.
        y: i32,
    },
    /// Take the cursor off.
    CursorHide {
        /// Of which scanout.
        #[serde(default)]
        scanout: u32,
    },
    /// Call DxgkDdiEscape with this private data. The driver may refuse it:
    /// a program may send anything.
    Escape {
        /// All of it.
        data: Hex,
    },
    /// Put the adapter into a power state.
    Power {
        /// Which.
        to: Power,
    },
}

impl Step {
    /// Its name in a scenario file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::CreateBlob { .. } => "create-blob",
            Self::Present { .. } => "present",
            Self::Wait { .. } => "wait",
            Self::Free { .. } => "free",
            Self::Resize { .. } => "resize",
            Self::Scanout { .. } => "scanout",
            Self::ScanoutOff { .. } => "scanout-off",
            Self::Display { .. } => "display",
            Self::Edid { .. } => "edid",
            Self::Cursor { .. } => "cursor",
            Self::CursorMove { .. } => "cursor-move",
            Self::CursorHide { .. } => "cursor-hide",
            Self::Escape { .. } => "escape",
            Self::Power { .. } => "power",
        }
    }

    /// The resource that it works on, if that must exist already.
    fn resource(&self) -> Option<u32> {
        match *self {
            Self::Present { resource, .. }
            | Self::Wait { resource }
            | Self::Free { resource }
            | Self::Resize { resource, .. }
            | Self::Scanout { resource, .. } => Some(resource),
            _ => None,
        }
    }

    /// The scanout that it names.
    fn scanout(&self) -> Option<u32> {
        match *self {
            Self::Create { scanout, .. }
            | Self::CreateBlob { scanout, .. }
            | Self::Scanout { scanout, .. }
            | Self::ScanoutOff { scanout }
            | Self::Display { scanout }
            | Self::Edid { scanout }
            | Self::Cursor { scanout, .. }
            | Self::CursorMove { scanout, .. }
            | Self::CursorHide { scanout } => Some(scanout),
            _ => None,
        }
    }

    /// Width and height of what it makes.
    fn size(&self) -> Option<(u32, u32)> {
        match *self {
            Self::Create { width, height, .. }
            | Self::CreateBlob { width, height, .. }
            | Self::Resize { width, height, .. } => Some((width, height)),
            _ => None,
        }
    }
}

/// What has become of the adapter and its resources so far.
#[derive(Default)]
struct Sofar {
    alive: Vec<bool>,
    off: bool,
}

/// A workload must name resources that exist, and sizes and places that can;
/// in D3 there is nothing to do but to leave it.
pub(crate) fn check(steps: &[Step]) -> Result<(), PlanError> {
    let mut sofar = Sofar::default();
    steps.iter().enumerate().try_for_each(|(at, step)| {
        sofar.take(step).map_err(|problem| PlanError::Step {
            step: at + 1,
            problem,
        })
    })
}

impl Sofar {
    fn take(&mut self, step: &Step) -> Result<(), String> {
        let (width, height) = step.size().unwrap_or((1, 1));
        for (what, side) in [("width", width), ("height", height)] {
            if side == 0 || side > MAX_FRAME_SIDE {
                return Err(format!(
                    "{what} = {side}: give 1 to {MAX_FRAME_SIDE} pixels"
                ));
            }
        }
        if let Some(scanout) = step.scanout().filter(|scanout| *scanout >= MAX_SCANOUTS) {
            return Err(format!(
                "scanout = {scanout}: give 0 to {}",
                MAX_SCANOUTS - 1
            ));
        }
        if let Some(resource) = step.resource() {
            match self.alive.get(resource as usize) {
                Some(true) => {}
                Some(false) => {
                    return Err(format!("resource {resource} was freed by an earlier step"));
                }
                None => {
                    return Err(format!(
                        "resource {resource} was not created by an earlier step"
                    ));
                }
            }
        }
        if self.off && !matches!(step, Step::Power { .. }) {
            return Err(format!(
                "the adapter is off: put {{ do = \"power\", to = \"on\" }} before \"{}\"",
                step.name()
            ));
        }
        match *step {
            Step::Create { .. } | Step::CreateBlob { .. } => self.alive.push(true),
            Step::Free { resource } => {
                if let Some(alive) = self.alive.get_mut(resource as usize) {
                    *alive = false;
                }
            }
            Step::Cursor { hot_x, hot_y, .. } => {
                for (what, value) in [("hot-x", hot_x), ("hot-y", hot_y)] {
                    if value >= CURSOR_SIDE {
                        return Err(format!("{what} = {value}: give 0 to {}", CURSOR_SIDE - 1));
                    }
                }
            }
            Step::Power { to } => {
                if self.off == (to == Power::Off) {
                    let state = if self.off { "off" } else { "on" };
                    return Err(format!("the adapter is {state} already"));
                }
                self.off = to == Power::Off;
            }
            _ => {}
        }
        Ok(())
    }
}
