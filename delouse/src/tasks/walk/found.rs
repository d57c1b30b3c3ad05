//! What a walk found.

use std::sync::Arc;

use super::super::layout::LayoutId;
use super::super::{Frame, LeafPlace, ResourceKind, WaitsOn};
use crate::snapshot::Address;

/// What was found in one future: its frames in preorder, and what its leaves wait for.
#[derive(Debug, Default)]
pub(in crate::tasks) struct Walked {
    pub(in crate::tasks) nodes: Vec<Node>,
    pub(in crate::tasks) waits: Vec<WaitsOn>,
    /// Where the leaves are stored, in the same order.
    pub(in crate::tasks) leaves: Vec<LeafPlace>,
    /// Headers of the tasks that are joined, by index into `waits`.
    pub(in crate::tasks) joins: Vec<(usize, Address)>,
    /// A function is at an `.await` of something that has completed: it is in the middle of a poll.
    pub(in crate::tasks) is_polled: bool,
    /// Why the walk is incomplete.
    pub(in crate::tasks) cut: Option<&'static str>,
    /// The whole stack, if it was replayed; then there are no nodes.
    pub(in crate::tasks) stack: Option<Arc<[Frame]>>,
}

impl Walked {
    /// Adds a wait of the frame that was found last. A replay has no frames.
    pub(super) fn add(&mut self, waits: WaitsOn, leaf: LeafPlace) {
        self.waits.push(waits);
        self.leaves.push(leaf);
        if let Some(node) = self.nodes.last_mut() {
            node.place.add_wait();
        }
    }

    /// Adds a wait of the future at `at`, in which no leaf was found and whose frames begin with the one at `first`: it
    /// belongs to the innermost of these, if there is only one.
    pub(super) fn add_without_leaf(&mut self, first: usize, at: Address, kind: ResourceKind) {
        self.waits.push(WaitsOn { kind, ..WaitsOn::default() });
        self.leaves.push(LeafPlace { at, ..LeafPlace::default() });
        let mut frame = first;
        while let Some((child, next)) = self.only_child(frame)
            && next == self.nodes.len()
        {
            frame = child;
        }
        if let Some(node) = self.nodes.get_mut(frame) {
            node.place.add_wait();
        }
    }

    /// The frame below the one at `of`, if there is just one, and the end of the frames below that one.
    fn only_child(&self, of: usize) -> Option<(usize, usize)> {
        let depth = self.nodes.get(of)?.place.depth();
        let below = self.nodes.get(of + 1..)?;
        let end = below.iter().position(|node| node.place.depth() <= depth).unwrap_or(below.len());
        let first = below.first().filter(|_| end > 0)?.place.depth();
        let children = below.iter().take(end).filter(|node| node.place.depth() == first).count();
        (children == 1).then_some((of + 1, of + 1 + end))
    }

    /// Drops the frames of types that could have waited for something, but do not.
    pub(super) fn drop_idle_frames(&mut self) {
        // The least depth among the frames after this one that are kept.
        let mut needed = 0;
        let mut stays = vec![false; self.nodes.len()];
        for (node, stays) in self.nodes.iter().zip(&mut stays).rev() {
            let depth = node.place.depth();
            let has_child = needed > depth;
            *stays = has_child || node.place.waits() > 0 || node.place.part() != Part::Type;
            needed = if *stays { depth } else { needed.min(depth) };
        }
        let mut stays = stays.into_iter();
        self.nodes.retain(|_| stays.next().unwrap_or(true));
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.waits.clear();
        self.leaves.clear();
        self.joins.clear();
        self.is_polled = false;
        self.cut = None;
        self.stack = None;
    }
}

/// One frame.
#[derive(Debug, Clone)]
pub(in crate::tasks) struct Node {
    pub(in crate::tasks) layout: LayoutId,
    pub(in crate::tasks) place: FramePlace,
}

/// The depth of a frame in its stack, which part of its layout it shows, and how many of the waits are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::tasks) struct FramePlace(u64);

impl FramePlace {
    /// Above the depth (16 bits) and the part (2 bits, and an index of 22 bits).
    const ONE_WAIT: u64 = 1 << 40;
    const MAX_INDEX: u64 = (1 << 22) - 1;

    pub(in crate::tasks) fn new(depth: u16, part: Part) -> Self {
        let part = match part {
            Part::Type => 0,
            Part::State(index) => ((index as u64).min(Self::MAX_INDEX) << 2) | 1,
            Part::Awaitee(index) => ((index as u64).min(Self::MAX_INDEX) << 2) | 2,
        };
        Self((part << 16) | u64::from(depth))
    }

    pub(in crate::tasks) fn depth(self) -> u16 {
        self.0 as u16
    }

    pub(in crate::tasks) fn part(self) -> Part {
        let index = ((self.0 >> 18) & Self::MAX_INDEX) as usize;
        match (self.0 >> 16) & 3 {
            0 => Part::Type,
            1 => Part::State(index),
            _ => Part::Awaitee(index),
        }
    }

    /// Adds a wait to the frame's own.
    pub(super) fn add_wait(&mut self) {
        self.0 = self.0.saturating_add(Self::ONE_WAIT);
    }

    pub(in crate::tasks) fn waits(self) -> u32 {
        (self.0 / Self::ONE_WAIT) as u32
    }
}

/// Which part of a layout a frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::tasks) enum Part {
    /// The type itself.
    Type,
    /// A coroutine in that state (an index).
    State(usize),
    /// The future that a coroutine in that state awaits, if nothing more is known about it.
    Awaitee(usize),
}
