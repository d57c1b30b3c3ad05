//! Where in the stack of its task a wait is.

use std::cell::RefCell;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::CodeLocation;
use crate::tasks::{Frame, Origin};

/// A wait in a stack, as text.
#[derive(Clone, Default)]
pub(super) struct LeafText {
    /// The innermost function that waits and belongs to the program, not to a library.
    pub(super) place: Option<Arc<CodeLocation>>,
    /// The innermost future.
    pub(super) leaf: Option<Arc<str>>,
}

/// The waits in stacks, by the address of the stack and the index of the wait: tasks that are suspended at the same place
/// share their stack.
#[derive(Default)]
pub(super) struct LeafTexts(RefCell<FxHashMap<(*const Frame, usize), LeafText>>);

impl LeafTexts {
    /// The wait of a stack with that index. A wait that belongs to no future, such as the wait for a thread, is shown at the
    /// first leaf.
    pub(super) fn of(&self, stack: &[Frame], leaf: usize) -> LeafText {
        let mut known = self.0.borrow_mut();
        let text = known.entry((stack.as_ptr(), leaf)).or_insert_with(|| {
            let mut found = Vec::new();
            leaves(stack, None, &mut found);
            let found = found.get(leaf).or(found.first()).copied();
            let (place, leaf) =
                found.map_or_else(|| (first_leaf(stack), None), |(place, leaf)| (place, Some(leaf)));
            LeafText {
                place: place.map(|frame| CodeLocation::of_frame(frame).into()),
                leaf: leaf.map(|leaf| leaf.function.as_str().into()),
            }
        });
        text.clone()
    }
}

/// The innermost user function above the first leaf of a stack.
fn first_leaf(stack: &[Frame]) -> Option<&Frame> {
    let path = std::iter::successors(stack.first(), |frame| frame.children.first());
    path.filter(|frame| frame.origin == Origin::User && frame.line.is_some()).last().or(stack.first())
}

/// The innermost user function above a future that waits, and the future.
type LeafFrames<'f> = (Option<&'f Frame>, &'f Frame);

/// The frames of each wait, in the order of `waits_on`. The walk that made the stack has bounded its depth.
fn leaves<'f>(frames: &'f [Frame], above: Option<&'f Frame>, found: &mut Vec<LeafFrames<'f>>) {
    for frame in frames {
        let own = frame.origin == Origin::User && frame.line.is_some();
        let above = if own || above.is_none() { Some(frame) } else { above };
        found.extend((0..frame.waits).map(|_| (above, frame)));
        leaves(&frame.children, above, found);
    }
}
