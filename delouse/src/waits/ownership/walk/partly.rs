//! Walks values of which not everything counts: the target of a raw pointer, which has another owner; and a future that
//! polls only one of its parts.

use super::super::Node;
use super::super::walk_context::WalkContext;
use super::{Seen, Visit, Walker};
use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;
use crate::tasks::layout::{Alone, Field, Interest, Layout};

impl Walker<'_, '_, '_> {
    /// Visits the target of a raw pointer, for the wakers in it: a list of waiters leads to nodes in the futures that
    /// wait. Pointers of tasks are not followed, because each node of a list leads to all others.
    pub(super) fn raw(&mut self, target: TypeId, at: Address, step: u32, context: WalkContext) {
        if matches!(self.owner, Node::Task(_) | Node::Part(_)) {
            return;
        }
        let target = self.layouts.of(Interest::Handles, target).filter(|target| !target.is_nothing());
        if let (Some(target), Some(at)) = (target, self.process.memory.pointer(at))
            && self.seen.insert((at, Seen::As(target.id)))
        {
            let context = WalkContext { borrowed: true, ..context.behind_pointer() };
            self.work.push(Visit { layout: target, at, base: at, step, context });
        }
    }

    /// Visits the fields of a value. If it polls one of them alone, the others are not polled.
    pub(super) fn parts(
        &mut self,
        layout: &Layout,
        fields: &[Field],
        base: Address,
        step: u32,
        context: WalkContext,
    ) {
        let alone = self.layouts.option_alone(layout, base);
        let is_there = |alone: &Alone<'_>| alone.read(&self.process.memory).is_some_and(|(_, there)| there);
        let Some(alone) = alone.filter(is_there) else { return self.fields(fields, base, step, context) };
        for field in fields {
            let context = match field.offset == alone.offset {
                true => context,
                false => WalkContext { unpolled: context.unpolled.or(Some(step)), ..context },
            };
            self.fields(std::slice::from_ref(field), base, step, context);
        }
    }
}
