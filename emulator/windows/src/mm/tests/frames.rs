use crate::mm::frames::{Frame, Frames, Taken, Window, count_frames, each_frame};
use journal::event::{AllocationId, PageRun};
use memory::Pfn;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ID: AllocationId = AllocationId(1);

fn run(first: u64, count: u64) -> PageRun {
    PageRun {
        first: Pfn(first),
        count,
    }
}

fn window(low: u64, high: u64) -> Window {
    Window {
        low: Pfn(low),
        high: Pfn(high),
    }
}

fn numbers(runs: &[PageRun]) -> Vec<u64> {
    each_frame(runs).map(|frame| frame.0).collect()
}

#[test]
fn allocation_is_lowest_first() {
    let mut frames = Frames::new(&[run(10, 10)], 0);
    let taken = frames.allocate(ID, 3, Window::ALL, false).unwrap();
    assert_eq!(taken.frames, [run(10, 3)]);
}

#[test]
fn overlapping_ranges_are_merged() {
    let frames = Frames::new(&[run(15, 10), run(10, 8), run(40, 2)], 0);
    assert_eq!(frames.available(Window::ALL), 17);
    assert_eq!(frames.state(Pfn(24)), Some(Frame::Free));
    assert_eq!(frames.state(Pfn(25)), None);
}

#[test]
fn a_short_full_request_changes_nothing() {
    let mut frames = Frames::new(&[run(10, 10)], 0);
    let before = frames.clone();
    assert_eq!(frames.allocate(ID, 11, Window::ALL, false), None);
    assert_eq!(frames, before);
}

#[test]
fn a_short_partial_request_gives_what_there_is() {
    let mut frames = Frames::new(&[run(10, 10)], 0);
    let taken = frames.allocate(ID, 11, window(12, 14), true).unwrap();
    assert_eq!(taken.frames, [run(12, 3)]);
}

#[test]
fn windows_keep_to_whole_pages() {
    assert_eq!(Window::of_addresses(1, 0x2fff), Some(window(1, 2)));
    assert_eq!(Window::of_addresses(0, 0x2ffe), Some(window(0, 1)));
    assert_eq!(Window::of_addresses(0x1001, 0x1fff), None);
    assert_eq!(Window::of_addresses(0, u64::MAX), Some(Window::ALL));
}

#[test]
fn contiguous_frames_cross_no_boundary() {
    let mut frames = Frames::new(&[run(10, 100)], 0);
    let taken = frames
        .allocate_contiguous(ID, 8, Window::ALL, 1, 16)
        .unwrap();
    assert_eq!(taken.frames, [run(16, 8)]);
}

#[test]
fn a_run_longer_than_its_boundary_is_refused() {
    let mut frames = Frames::new(&[run(10, 100)], 0);
    assert_eq!(frames.allocate_contiguous(ID, 17, Window::ALL, 1, 16), None);
}

#[test]
fn quarantined_frames_come_back_oldest_first() {
    let mut frames = Frames::new(&[run(10, 4)], 4);
    frames.allocate(ID, 4, Window::ALL, false).unwrap();
    assert_eq!(frames.release(&[run(12, 1), run(10, 1)]), []);
    let taken = frames.allocate(ID, 1, Window::ALL, false).unwrap();
    assert_eq!(taken.frames, [run(12, 1)]);
    assert_eq!(taken.recycled, [run(12, 1)]);
    assert_eq!(frames.state(Pfn(10)), Some(Frame::Quarantined));
}

#[test]
fn an_overfull_quarantine_lets_the_oldest_go() {
    let mut frames = Frames::new(&[run(10, 4)], 1);
    frames.allocate(ID, 4, Window::ALL, false).unwrap();
    assert_eq!(frames.release(&[run(13, 1)]), []);
    assert_eq!(frames.release(&[run(11, 1)]), [run(13, 1)]);
}

#[test]
fn a_contiguous_request_empties_the_quarantine_only_if_that_helps() {
    let mut frames = Frames::new(&[run(10, 4)], 4);
    frames.allocate(ID, 4, Window::ALL, false).unwrap();
    frames.release(&[run(10, 1), run(12, 1)]);
    assert_eq!(frames.allocate_contiguous(ID, 2, Window::ALL, 1, 0), None);
    assert_eq!(frames.quarantined(), 2);
    frames.release(&[run(11, 1)]);
    let taken = frames
        .allocate_contiguous(ID, 2, Window::ALL, 1, 0)
        .unwrap();
    assert_eq!(taken.frames, [run(10, 2)]);
}

#[test]
fn a_second_release_is_ignored() {
    let mut frames = Frames::new(&[run(10, 4)], 0);
    frames.allocate(ID, 1, Window::ALL, false).unwrap();
    frames.release(&[run(10, 1)]);
    assert_eq!(frames.release(&[run(10, 1)]), []);
    assert_eq!(frames.available(Window::ALL), 4);
}

#[test]
fn reserved_frames_come_from_the_top() {
    let mut frames = Frames::new(&[run(10, 4)], 0);
    assert_eq!(frames.reserve().unwrap().0, Pfn(13));
    assert_eq!(frames.state(Pfn(13)), Some(Frame::Reserved));
}

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        pages: u64,
        window: Window,
        partial: bool,
    },
    Contiguous {
        pages: u64,
        window: Window,
        alignment: u64,
        boundary: u64,
    },
    Reserve,
    Release(usize),
}

fn any_window() -> impl Strategy<Value = Window> {
    (0u64..70, 0u64..70).prop_map(|(a, b)| window(a.min(b), a.max(b)))
}

fn any_step() -> impl Strategy<Value = Step> {
    let power = prop_oneof![Just(1u64), Just(2), Just(4), Just(8)];
    prop_oneof![
        (1u64..20, any_window(), any::<bool>()).prop_map(|(pages, window, partial)| {
            Step::Allocate {
                pages,
                window,
                partial,
            }
        }),
        (
            1u64..10,
            any_window(),
            power.clone(),
            prop_oneof![Just(0u64), power]
        )
            .prop_map(|(pages, window, alignment, boundary)| Step::Contiguous {
                pages,
                window,
                alignment,
                boundary
            }),
        Just(Step::Reserve),
        any::<usize>().prop_map(Step::Release),
    ]
}

/// What the frames must be, kept the simple way.
struct Model {
    owners: BTreeMap<u64, Frame>,
    live: Vec<Vec<PageRun>>,
    quarantine: Vec<u64>,
}

impl Model {
    fn recycle(&mut self, runs: &[PageRun]) {
        for frame in numbers(runs) {
            assert_eq!(
                self.owners.insert(frame, Frame::Free),
                Some(Frame::Quarantined)
            );
            let at = self.quarantine.iter().position(|&f| f == frame).unwrap();
            self.quarantine.remove(at);
        }
    }

    fn take(&mut self, id: AllocationId, taken: &Taken) {
        self.recycle(&taken.recycled);
        for frame in numbers(&taken.frames) {
            assert_eq!(
                self.owners.insert(frame, Frame::Owned(id)),
                Some(Frame::Free)
            );
        }
        self.live.push(taken.frames.clone());
    }
}

proptest! {
    #[test]
    fn frames_are_in_one_state_and_constraints_hold(
        steps in prop::collection::vec(any_step(), 1..60),
        limit in 0u64..20,
    ) {
        let ranges = [run(5, 20), run(40, 25)];
        let mut frames = Frames::new(&ranges, limit);
        let mut model = Model {
            owners: each_frame(&ranges).map(|f| (f.0, Frame::Free)).collect(),
            live: Vec::new(),
            quarantine: Vec::new(),
        };
        for (number, step) in (1..).zip(steps) {
            let id = AllocationId(number);
            match step {
                Step::Allocate { pages, window, partial } => {
                    let free = frames.available(window);
                    let taken = frames.allocate(id, pages, window, partial);
                    prop_assert_eq!(taken.is_some(), partial || free >= pages);
                    if let Some(taken) = taken {
                        prop_assert_eq!(count_frames(&taken.frames), pages.min(free));
                        let inside = |f: u64| window.low.0 <= f && f <= window.high.0;
                        prop_assert!(numbers(&taken.frames).into_iter().all(inside));
                        model.take(id, &taken);
                    }
                }
                Step::Contiguous { pages, window, alignment, boundary } => {
                    let taken = frames.allocate_contiguous(id, pages, window, alignment, boundary);
                    if let Some(taken) = taken {
                        let [one] = taken.frames[..] else { panic!("more than a run") };
                        let (first, last) = (one.first.0, one.first.0 + one.count - 1);
                        prop_assert_eq!(one.count, pages);
                        prop_assert!(window.low.0 <= first && last <= window.high.0);
                        prop_assert_eq!(first % alignment, 0);
                        prop_assert!(boundary == 0 || first / boundary == last / boundary);
                        model.take(id, &taken);
                    }
                }
                Step::Reserve => {
                    if let Some((frame, recycled)) = frames.reserve() {
                        model.recycle(&recycled);
                        let old = model.owners.insert(frame.0, Frame::Reserved);
                        prop_assert_eq!(old, Some(Frame::Free));
                    }
                }
                Step::Release(which) if !model.live.is_empty() => {
                    let index = which % model.live.len();
                    let runs = model.live.swap_remove(index);
                    for frame in numbers(&runs) {
                        model.owners.insert(frame, Frame::Quarantined);
                        model.quarantine.push(frame);
                    }
                    let recycled = frames.release(&runs);
                    let over = model.quarantine.len() as u64 - frames.quarantined();
                    let oldest = model.quarantine[..over as usize].to_vec();
                    prop_assert_eq!(numbers(&recycled), oldest);
                    model.recycle(&recycled);
                    prop_assert!(frames.quarantined() <= limit);
                }
                Step::Release(_) => {}
            }
            for (&frame, &state) in &model.owners {
                prop_assert_eq!(frames.state(Pfn(frame)), Some(state));
            }
        }
    }
}
