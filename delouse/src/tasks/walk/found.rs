//! What a walk found.

use std::rc::Rc;
use std::sync::Arc;

use super::super::plan::Plan;
use super::super::{Frame, LeafPlace, WaitsOn};

/// What was found in one future: its frames in preorder, and what its leaves wait for.
#[derive(Debug, Default)]
pub(in crate::tasks) struct Walked {
    pub(in crate::tasks) nodes: Vec<Node>,
    pub(in crate::tasks) waits: Vec<WaitsOn>,
    /// Where the leaves lie, in the same order.
    pub(in crate::tasks) leaves: Vec<LeafPlace>,
    /// Headers of the tasks that are joined, by index into `waits`.
    pub(in crate::tasks) joins: Vec<(usize, u64)>,
    /// Why this is not all.
    pub(in crate::tasks) cut: Option<&'static str>,
    /// The whole stack, where it was known before; then there are no nodes.
    pub(in crate::tasks) stack: Option<Arc<[Frame]>>,
}

impl Walked {
    /// Adds a wait of the frame that was found last. A walk that follows a known path has no frames.
    pub(super) fn add(&mut self, waits: WaitsOn, leaf: LeafPlace) {
        self.waits.push(waits);
        self.leaves.push(leaf);
        if let Some(node) = self.nodes.last_mut() {
            node.place.add_wait();
        }
    }

    /// Adds a wait for something that is not known, of the future at `at` whose frames begin with the one at `first`: of
    /// the innermost of these, unless it is not the only one.
    pub(super) fn add_unknown(&mut self, first: usize, at: u64) {
        self.waits.push(WaitsOn::default());
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

    /// The frame below the one at `of`, if there is just one, and where all that is below ends.
    fn only_child(&self, of: usize) -> Option<(usize, usize)> {
        let depth = self.nodes.get(of)?.place.depth();
        let below = self.nodes.get(of + 1..)?;
        let end = below.iter().position(|node| node.place.depth() <= depth).unwrap_or(below.len());
        let first = below.first().filter(|_| end > 0)?.place.depth();
        let children = below.iter().take(end).filter(|node| node.place.depth() == first).count();
        (children == 1).then_some((of + 1, of + 1 + end))
    }

    /// Drops the frames of types that only might have had something to wait for.
    pub(super) fn drop_idle_frames(&mut self) {
        // The least depth of a frame behind it that stays, and below which none came in between.
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
        self.cut = None;
        self.stack = None;
    }
}

/// One frame.
// Two words, as all that is handed on while walking is whole words: a processor that reads a word of which parts were
// just written waits for each, which was half of the time.
#[derive(Debug, Clone)]
pub(in crate::tasks) struct Node {
    pub(in crate::tasks) plan: Rc<Plan>,
    pub(in crate::tasks) place: Place,
}

/// Where a frame stands in its stack, which part of its plan it shows, and how many of the waits are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::tasks) struct Place(u64);

impl Place {
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

/// Which part of a plan a frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::tasks) enum Part {
    /// The type itself.
    Type,
    /// A coroutine in that state (an index).
    State(usize),
    /// The future that a coroutine in that state awaits, of which nothing more is known.
    Awaitee(usize),
}
