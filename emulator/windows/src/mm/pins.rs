//! MDLs of the driver's own that its device may reach
//! (`DxgkCbMapMdlToIoMmu`), and what becomes of them meanwhile.

use super::frames::{Frame, each_frame, push_frame};
use super::{Gva, Mdl, Pfn, State};
use crate::platform::Platform;
use crate::rules::Rule;
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
    /// The driver was told of a breach: what follows from it is no other.
    told: bool,
}

/// An MDL as the driver could see it: header and array.
pub(super) type Contents = (Mdl, Vec<u64>);

fn contents(platform: &dyn Platform, mdl: Gva) -> Option<Contents> {
    let mdl = Mdl::read(platform, mdl).ok()?;
    Some((mdl, mdl.slots(platform).ok()?))
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
        self.pins.list.push(Pin {
            mdl,
            pages,
            told: false,
        });
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
    /// the device still reaches them, and say whether it does. The call goes
    /// on, as on Windows.
    pub(super) fn tell_pinned(
        &mut self,
        platform: &mut dyn Platform,
        routine: &str,
        mdl: Gva,
        frames: impl IntoIterator<Item = Pfn>,
    ) -> bool {
        if self.pins.list.is_empty() {
            return false;
        }
        let frame = frames
            .into_iter()
            .find(|frame| self.pins.frames.contains_key(frame));
        let holds = |pin: &Pin| match frame {
            Some(frame) => each_frame(&pin.pages).any(|pinned| pinned == frame),
            None => pin.mdl == mdl,
        };
        let Some(at) = self.pins.list.iter().position(holds) else {
            return false;
        };
        let Some(pin) = self.pins.list.get(at) else {
            return false;
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
        self.tell_of(platform, &rule::DEVICE_MAPPED, at, &what);
        true
    }

    /// The MDL at `mdl` as it is before a routine writes to it, if the device
    /// reaches its pages: for [`State::tell_rewritten`].
    pub(super) fn before_rewrite(&self, platform: &dyn Platform, mdl: Gva) -> Option<Contents> {
        let pinned = self.pins.list.iter().any(|pin| pin.mdl == mdl);
        pinned.then(|| contents(platform, mdl)).flatten()
    }

    /// `routine` has written to the MDL at `mdl`: tell of it if the device
    /// reaches its pages and it is another now.
    pub(super) fn tell_rewritten(
        &mut self,
        platform: &mut dyn Platform,
        routine: &str,
        mdl: Gva,
        before: Option<Contents>,
    ) {
        if before.is_none() || before == contents(platform, mdl) {
            return;
        }
        let of_mdl = |pin: &Pin| pin.mdl == mdl;
        if let Some(at) = self.pins.list.iter().position(of_mdl) {
            let what = format!(
                "{routine} rewrites the MDL at {mdl}, through which the device reaches its pages"
            );
            self.tell_of(platform, &rule::DEVICE_REWRITTEN, at, &what);
        }
        for pin in self.pins.list.iter_mut().filter(|pin| pin.mdl == mdl) {
            pin.told = true;
        }
    }

    /// `routine` is about to end what the device reaches through the MDL at
    /// `mdl`: tell of it if that is gone, or names other pages, and nothing
    /// that it comes of was told.
    pub fn tell_changed(&mut self, platform: &mut dyn Platform, routine: &str, mdl: Gva) {
        let of_mdl = |pin: &Pin| pin.mdl == mdl;
        let Some(at) = self.pins.list.iter().position(of_mdl) else {
            return;
        };
        let Some(pin) = self.pins.list.get(at).filter(|pin| !pin.told) else {
            return;
        };
        let pages = || each_frame(&pin.pages).map(|frame| frame.0);
        let (rule, what) = match contents(platform, mdl) {
            Some((_, slots)) if slots.iter().copied().eq(pages()) => return,
            Some(_) => (
                &rule::DEVICE_REWRITTEN,
                "does not name the pages that were mapped with it",
            ),
            None => (&rule::DEVICE_MAPPED, "is gone"),
        };
        let what = format!("{routine}: the MDL at {mdl} {what}");
        self.tell_of(platform, rule, at, &what);
    }

    /// Tell of a breach that is about the MDL of the pin at that place.
    fn tell_of(&mut self, platform: &mut dyn Platform, rule: &Rule, at: usize, what: &str) {
        let Some(pin) = self.pins.list.get_mut(at) else {
            return;
        };
        pin.told = true;
        let address = pin.mdl.0;
        let pages = pin.pages.clone();
        let allocation = each_frame(&pages).find_map(|frame| match self.frame(frame) {
            Some(Frame::Owned(id)) => Some(id),
            _ => None,
        });
        let subject = Subject {
            allocation,
            address,
        };
        rule.report(platform, subject, None, what);
    }
}
