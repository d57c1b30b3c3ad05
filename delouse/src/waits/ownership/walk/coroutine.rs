//! Walks the variables of an `async` function.

use std::ops::Range;
use std::rc::Rc;

use super::super::plan::{Body, Coroutine, Field, Plan, StateKind};
use super::super::standing::{Doubt, Standing};
use super::super::variables::Variables;
use super::{GUESSED, Walker};

/// Words that are searched for guards in one function.
const MAX_HIDDEN: usize = 256;

impl Walker<'_, '_, '_, '_> {
    pub(super) fn coroutine(
        &mut self,
        plan: &Rc<Plan>,
        coroutine: &Coroutine,
        at: u64,
        trail: u32,
        standing: Standing,
    ) -> bool {
        if !self.seen.insert((at, plan.id)) {
            return true;
        }
        let value = self.discriminant(coroutine.at, at);
        let Some(state) = coroutine.states.iter().find(|state| Some(state.value) == value) else {
            return false;
        };
        if state.kind == StateKind::Over {
            return true;
        }
        let variables = self.plans.variables(plan.of, coroutine, state);
        let beside = trail;
        let trail = self.trail(trail, variables.frame);
        let flag = |offset: &u64| self.plans.process.memory.number(at.checked_add(*offset)?, 1);
        let moved = variables.flags.iter().any(|offset| flag(offset) == Some(0));
        let suspended = state.kind == StateKind::Suspended;
        let unpolled = standing.unpolled.or((standing.aside && suspended).then_some(beside));
        // One that was never polled may have been moved.
        let doubt = if suspended { standing.pinned } else { standing.doubt };
        let joined = state.joins;
        let inside =
            Standing { aside: false, variable: false, joined, unpolled, doubt, pinned: doubt, ..standing };
        // What is pushed last is walked first: a future that is polled by reference is met by the way that
        // polls it.
        let of_variables = Doubt { loose: doubt.loose || suspended, maybe_moved: doubt.maybe_moved || moved };
        let aside =
            Standing { aside: suspended, variable: suspended, joined: false, doubt: of_variables, ..inside };
        let is_unplaced = !variables.guesses.is_empty() || !variables.gaps.is_empty();
        self.found.unplaced += usize::from(is_unplaced);
        let doubtful = Standing { doubt: Doubt { maybe_moved: true, ..of_variables }, ..aside };
        self.fields(&variables.doubtful, at, trail, doubtful);
        self.fields(&variables.guesses, at, trail, Standing { guessed: true, ..doubtful });
        self.hidden(variables, at, trail, doubtful);
        for field in variables.fields.iter().rev() {
            let twin = variables.awaitee.as_ref().is_some_and(|awaitee| {
                awaitee.plan.of == field.plan.of && self.is_moved(at, awaitee, field, variables.size)
            });
            if !twin {
                self.fields(std::slice::from_ref(field), at, trail, aside);
            }
        }
        if let Some(awaitee) = &variables.awaitee {
            self.fields(std::slice::from_ref(awaitee), at, trail, inside);
        }
        true
    }

    /// Searches what belongs to no variable that is known for guards of locks that somebody waits for.
    fn hidden(&mut self, variables: &Variables, base: u64, trail: u32, standing: Standing) {
        if variables.gaps.is_empty() {
            return;
        }
        let (plans, wanted) = (self.plans, self.wanted);
        let trail = self.trail(trail, variables.hidden);
        let guards = plans.guards();
        let words = |gap: &Range<u64>| (gap.start.next_multiple_of(8)..gap.end).step_by(8);
        for place in variables.gaps.iter().flat_map(words).take(MAX_HIDDEN) {
            let Some(at) = base.checked_add(place) else { continue };
            let guard = guards.iter().find_map(|plan| {
                let Body::Handle { handle, .. } = &plan.body else { return None };
                let read =
                    handle.read(plans.process, at).filter(|(resource, _)| wanted.contains(resource))?;
                Some((handle, read))
            });
            if let Some((handle, read)) = guard.filter(|_| self.seen.insert((at, GUESSED))) {
                self.hold(handle, read, at, trail, standing);
            }
        }
    }

    /// Whether a variable was moved into what is awaited: `receiver.await` leaves its bytes behind.
    fn is_moved(&self, base: u64, awaitee: &Field, field: &Field, size: u64) -> bool {
        let word = |of: &Field, offset: u64| {
            self.plans
                .process
                .memory
                .number(base.checked_add(of.offset)?.checked_add(offset)?, 8.min(size - offset))
        };
        size > 0 && (0..size.min(64)).step_by(8).all(|offset| word(awaitee, offset) == word(field, offset))
    }
}
