//! Walks the variables of an `async` function.

use std::ops::Range;

use super::super::walk_context::{Doubt, WalkContext};
use super::{Seen, Walker};
use crate::snapshot::Address;
use crate::tasks::layout::{Body, Coroutine, Field, Layout, StateKind, Variables};

/// The most states of one function that are walked for its first poll.
const MAX_STATES: usize = 32;
/// The most words that are searched for guards in one function.
const MAX_HIDDEN: usize = 256;

impl<'w> Walker<'w, '_, '_> {
    pub(super) fn coroutine(
        &mut self,
        layout: &Layout,
        coroutine: &'w Coroutine,
        at: Address,
        step: u32,
        context: WalkContext,
    ) -> bool {
        if !self.seen.insert((at, Seen::As(layout.id))) {
            return true;
        }
        let Some((_, state)) = coroutine.state(&self.process.memory, at) else { return false };
        match state.kind {
            StateKind::Over => return true,
            StateKind::Unknown => return false,
            StateKind::Unresumed | StateKind::Suspended => {}
        }
        if self.first_polls && !state.is_suspended() {
            self.as_if_suspended(layout, coroutine, at, step, context);
        }
        let variables = self.layouts.variables(layout.of, coroutine, state);
        let beside = step;
        let step = self.step(step, variables.frame);
        let flag = |offset: &u64| self.process.memory.number(at.checked_add(*offset)?, 1);
        let moved = variables.flags.iter().any(|offset| flag(offset) == Some(0));
        let suspended = state.is_suspended();
        let unpolled = context.unpolled.or((context.aside && suspended).then_some(beside));
        // A future that was never polled may have been moved.
        let doubt = if suspended { context.pinned } else { context.doubt };
        let joined = state.joins();
        let inside =
            WalkContext { aside: false, variable: false, joined, unpolled, doubt, pinned: doubt, ..context };
        // The last field that is pushed is visited first: a future that is polled by reference is first reached from
        // the future that polls it.
        let of_variables = Doubt { loose: doubt.loose || suspended, maybe_moved: doubt.maybe_moved || moved };
        let aside = WalkContext {
            aside: suspended,
            variable: suspended,
            joined: false,
            doubt: of_variables,
            ..inside
        };
        let is_unplaced = !variables.guesses.is_empty() || !variables.gaps.is_empty();
        self.found.unplaced += usize::from(is_unplaced);
        let doubtful = WalkContext { doubt: Doubt { maybe_moved: true, ..of_variables }, ..aside };
        self.fields(&variables.doubtful, at, step, doubtful);
        self.fields(&variables.guesses, at, step, WalkContext { guessed: true, ..doubtful });
        self.hidden(variables, at, step, doubtful);
        for field in variables.fields.iter().rev() {
            let awaitee = variables.awaitee.as_ref();
            let twin = awaitee
                .is_some_and(|awaitee| awaitee.layout == field.layout && self.is_moved(at, awaitee, field));
            if !twin {
                self.fields(std::slice::from_ref(field), at, step, aside);
            }
        }
        if let Some(awaitee) = &variables.awaitee {
            self.fields(std::slice::from_ref(awaitee), at, step, inside);
        }
        true
    }

    /// Walks the variables of a function that is in its first poll, for each `.await` that it may be at.
    fn as_if_suspended(
        &mut self,
        layout: &Layout,
        coroutine: &'w Coroutine,
        at: Address,
        step: u32,
        context: WalkContext,
    ) {
        for state in coroutine.states.iter().filter(|state| state.is_suspended()).take(MAX_STATES) {
            let variables = self.layouts.variables(layout.of, coroutine, state);
            let step = self.step(step, variables.frame);
            self.fields(&variables.fields, at, step, context);
            if let Some(awaitee) = &variables.awaitee {
                self.fields(std::slice::from_ref(awaitee), at, step, context);
            }
        }
    }

    /// Searches the bytes that belong to no known variable for guards of locks that are waited for.
    fn hidden(&mut self, variables: &Variables, base: Address, step: u32, context: WalkContext) {
        if variables.gaps.is_empty() {
            return;
        }
        let (process, wanted) = (self.process, self.wanted);
        let step = self.step(step, variables.hidden);
        let guards = self.layouts.guards();
        let words = |gap: &Range<u64>| (gap.start.next_multiple_of(8)..gap.end).step_by(8);
        for place in variables.gaps.iter().flat_map(words).take(MAX_HIDDEN) {
            let Some(at) = base.checked_add(place) else { continue };
            let guard = guards.iter().find_map(|layout| {
                let Body::Handle { handle, .. } = &layout.body else { return None };
                let read =
                    handle.read(process, at).filter(|(resource, _)| wanted.contains(&(*resource).into()))?;
                Some((handle, read))
            });
            if let Some((handle, read)) = guard.filter(|_| self.seen.insert((at, Seen::Guessed))) {
                self.hold(handle, read, at, step, context);
            }
        }
    }

    /// Whether a variable was moved into the future that is awaited: `receiver.await` leaves a stale copy in the
    /// variable.
    fn is_moved(&self, base: Address, awaitee: &Field, field: &Field) -> bool {
        let size = self.layouts.get(awaitee.layout).map_or(0, |layout| layout.size);
        let word = |of: &Field, offset: u64| {
            self.process
                .memory
                .number(base.checked_add(of.offset)?.checked_add(offset)?, 8.min(size - offset))
        };
        size > 0 && (0..size.min(64)).step_by(8).all(|offset| word(awaitee, offset) == word(field, offset))
    }
}
