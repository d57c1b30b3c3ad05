//! The async stack of one future of the list.

use std::sync::Arc;

use super::Lister;
use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;
use crate::tasks::header::State;
use crate::tasks::layout::{Interest, Layout};
use crate::tasks::walk::UNKNOWN_STATE;
use crate::tasks::{Frame, LeafPlace, TaskState, WaitsOn};

/// Whether a future is being polled at the moment of the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    No,
    Now,
    /// Not known: a main future has no state.
    Maybe,
}

impl Polled {
    pub(super) fn of(state: State) -> Self {
        if state.meaning() == TaskState::Running { Self::Now } else { Self::No }
    }
}

/// A stack, what its leaves wait for, where they are stored, and why it is not shown to its end.
#[derive(Default)]
pub(super) struct AsyncStack {
    pub(super) stack: Arc<[Frame]>,
    pub(super) waits_on: Vec<WaitsOn>,
    pub(super) leaves: Vec<LeafPlace>,
    pub(super) cut: Option<&'static str>,
    /// What it looks like, if it waits and that is wanted.
    pub(super) fingerprint: Option<u32>,
    /// Memory shows that it is being polled.
    pub(super) is_polled: bool,
}

impl<'l> Lister<'l, '_, '_> {
    /// The stack of the future of type `of` at `address`, of the task with that header, or a main future.
    pub(super) fn future(
        &mut self,
        of: TypeId,
        address: Address,
        header: Option<Address>,
        polled: Polled,
    ) -> Option<AsyncStack> {
        let layout = self.knowledge.layouts.of(Interest::Futures, of)?;
        if layout.is_unrecognised() {
            return Some(self.unrecognised(layout, address, polled));
        }
        let state = header.and_then(|header| self.headers.state(header));
        self.walker.set_task(header, state.is_some_and(|state| state.meaning() == TaskState::Idle));
        let mut walked = self.walker.walk(layout, address, polled == Polled::Now);
        // A future that is being polled may be in a state in which it cannot be suspended.
        let is_polled = polled == Polled::Maybe && (walked.is_polled || walked.cut == Some(UNKNOWN_STATE));
        if is_polled {
            walked = self.walker.walk(layout, address, true);
        }
        for (index, header) in &walked.joins {
            if let Some(waits) = walked.waits.get_mut(*index) {
                waits.task = self.headers.id(*header);
            }
        }
        if let Some(now) = self.options.now {
            for waits in &mut walked.waits {
                waits.in_ms =
                    waits.deadline.map(|deadline| (deadline as i64).wrapping_sub(now as i64) / 1_000_000);
            }
        }
        let (known, nodes) = (walked.stack.take(), walked.nodes.as_slice());
        let is_opaque = known.is_none() && nodes.is_empty();
        // The copies are as large as they have to be; the walker keeps its memory for the next walk.
        let mut leaves: Vec<LeafPlace> = if self.options.places || self.recent.is_some() {
            walked.leaves.as_slice().into()
        } else {
            Vec::new()
        };
        let (waits_on, cut): (Vec<WaitsOn>, _) = (walked.waits.as_slice().into(), walked.cut);
        let stack = match known {
            Some(stack) => stack,
            None if is_opaque => Arc::from([Frame { waits: 0, ..self.stacks.opaque(layout) }]),
            None => {
                let stack = self.stacks.stack(walked);
                self.walker.keep(&stack);
                stack
            }
        };
        let recent = self.recent.as_mut().filter(|_| !is_polled && polled != Polled::Now);
        let fingerprint = recent.map(|recent| {
            let (memory, future) = (&self.process.memory, (address, layout.size));
            recent.fingerprint(memory, &stack, future, (&waits_on, &leaves))
        });
        if !self.options.places {
            leaves = Vec::new();
        }
        Some(AsyncStack { stack, waits_on, leaves, cut, fingerprint, is_polled })
    }

    /// The stack of a future in which nothing is recognised: while it is not polled, it waits for something.
    fn unrecognised(&self, layout: &Layout, at: Address, polled: Polled) -> AsyncStack {
        let frame = self.stacks.opaque(layout);
        if polled == Polled::Now {
            return AsyncStack { stack: Arc::from([Frame { waits: 0, ..frame }]), ..AsyncStack::default() };
        }
        let leaf = LeafPlace { at, ..LeafPlace::default() };
        AsyncStack {
            stack: Arc::from([frame]),
            waits_on: vec![WaitsOn::default()],
            leaves: if self.options.places { vec![leaf] } else { Vec::new() },
            ..AsyncStack::default()
        }
    }
}
