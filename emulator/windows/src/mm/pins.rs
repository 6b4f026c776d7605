//! MDLs of the driver's own that its device may reach
//! (`DxgkCbMapMdlToIoMmu`), and what becomes of them meanwhile.

use super::frames::{Frame, each_frame, push_frame};
use super::{Gva, Pfn, State};
use crate::platform::Platform;
use crate::rules::mm as rule;
use journal::event::{PageRun, Subject};
use std::collections::BTreeMap;

/// What the device may reach through MDLs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pins {
    /// The MDLs, in the order in which they were mapped.
    list: Vec<Pin>,
    /// How often each frame is in `list`.
    frames: BTreeMap<Pfn, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pin {
    mdl: Gva,
    pages: Vec<PageRun>,
}

impl State {
    /// From now on the device reaches these frames through the MDL: until
    /// [`State::unpin_for_device`], who frees either is told of it.
    pub fn pin_for_device(&mut self, mdl: Gva, frames: &[Pfn]) {
        let mut pages = Vec::new();
        for &frame in frames {
            push_frame(&mut pages, frame);
            *self.pins.frames.entry(frame).or_default() += 1;
        }
        self.pins.list.push(Pin { mdl, pages });
    }

    /// The device reaches them no more. Where an MDL was pinned several
    /// times, the oldest ends.
    pub fn unpin_for_device(&mut self, mdl: Gva) {
        let Some(at) = self.pins.list.iter().position(|pin| pin.mdl == mdl) else {
            return;
        };
        let pin = self.pins.list.remove(at);
        for frame in each_frame(&pin.pages) {
            if let Some(count) = self.pins.frames.get_mut(&frame) {
                *count -= 1;
                if *count == 0 {
                    self.pins.frames.remove(&frame);
                }
            }
        }
    }

    /// `routine` takes the MDL at `mdl`, or these frames, away: tell of it if
    /// the device still reaches them. The call goes on, as on Windows.
    pub(super) fn tell_pinned(
        &self,
        platform: &mut dyn Platform,
        routine: &str,
        mdl: Gva,
        frames: impl IntoIterator<Item = Pfn>,
    ) {
        if self.pins.list.is_empty() {
            return;
        }
        let frame = frames
            .into_iter()
            .find(|frame| self.pins.frames.contains_key(frame));
        let holds = |pin: &&Pin| match frame {
            Some(frame) => each_frame(&pin.pages).any(|pinned| pinned == frame),
            None => pin.mdl == mdl,
        };
        let Some(pin) = self.pins.list.iter().find(holds) else {
            return;
        };
        let what = match frame {
            Some(frame) => format!(
                "{routine} gives page {:#x} away, which the device reaches through the MDL at {}",
                frame.0, pin.mdl
            ),
            None => format!(
                "{routine} ends the MDL at {mdl}, through which the device reaches its pages"
            ),
        };
        let subject = Subject {
            allocation: each_frame(&pin.pages).find_map(|frame| match self.frame(frame) {
                Some(Frame::Owned(id)) => Some(id),
                _ => None,
            }),
            address: pin.mdl.0,
        };
        rule::DEVICE_MAPPED.report(platform, subject, None, what);
    }
}
