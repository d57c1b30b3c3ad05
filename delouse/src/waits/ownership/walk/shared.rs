//! Walks pointers with counters, and queues the objects that they share.

use super::super::walk_context::WalkContext;
use super::super::{Object, Reference};
use super::{Seen, Walker};
use crate::snapshot::{Address, Hidden};
use crate::tasks::layout::{Content, Counted, Interest, Layout};

/// The most shared objects of one capture.
const MAX_OBJECTS: usize = 1 << 22;

/// The most values of shared objects of one capture; a slice has several.
const MAX_QUEUED: usize = 1 << 23;

/// A larger number in the place of a reference count is garbage.
const MAX_COUNT: u64 = 1 << 32;

impl<'w> Walker<'w, '_, '_> {
    /// Visits a counted pointer; returns whether there was room for its object.
    pub(super) fn counted(
        &mut self,
        counted: &Counted,
        at: Address,
        step: u32,
        context: WalkContext,
    ) -> bool {
        // Two counters, strong and weak; all strong pointers together count as one weak pointer (`sync.rs`, `rc.rs`).
        let memory = &self.process.memory;
        let Some(place) = at.checked_add(counted.pointer) else { return true };
        let target = memory.pointer(place);
        let Some(counters) = target.and_then(|target| target.checked_sub(counted.back)) else {
            return true;
        };
        let count =
            |offset: u64| memory.word(counters.checked_add(offset)?).filter(|count| *count < MAX_COUNT);
        let (Some(strong), Some(weak)) = (count(0), count(8)) else { return true };
        if !counters.is_aligned(8) || strong == 0 || weak == 0 || !self.seen.insert((at, Seen::Counted)) {
            return true;
        }
        let new = self.found.objects.len();
        let hidden = Hidden::from(counters);
        if new >= MAX_OBJECTS && !self.numbers.contains_key(&hidden) {
            self.cut = true;
            return false;
        }
        let number = *self.numbers.entry(hidden).or_insert(new as u32);
        if number as usize == new {
            self.found.objects.push(Object {
                counters: hidden,
                strong,
                weak: weak - 1,
                value: Address::NULL,
                cut: false,
            });
        }
        let (path, unpolled) = (self.path(step), context.unpolled.map(|step| self.path(step)));
        self.found.references.push(Reference {
            owner: self.owner(context),
            object: number,
            weak: counted.weak,
            path,
            uncertain: self.running || context.doubt.maybe_moved,
            unpolled,
            only_adds: context.only_adds,
            place,
            solid: !context.doubt.loose && !self.running && !context.borrowed,
            borrowed: context.borrowed,
        });
        self.content(counted, number, counters, place.checked_add(8));
        true
    }

    /// Queues the value of a shared object, unless it was queued with that type already.
    fn content(&mut self, counted: &Counted, number: u32, counters: Address, behind: Option<Address>) {
        let process = self.process;
        match &counted.content {
            Content::Value { of, offset } => {
                let layout = self.layouts.of(Interest::Handles, *of);
                if let (Some(layout), Some(at)) = (layout, counters.checked_add(*offset)) {
                    self.enqueue(number, layout, at);
                }
            }
            Content::Dyn => {
                let vtable = behind.and_then(|at| process.memory.pointer(at));
                // Words of a vtable: drop, size, align.
                let align = vtable.and_then(|vtable| process.memory.word(vtable.checked_add(16)?));
                let Some(align) = align.filter(|align| align.is_power_of_two() && *align <= 1 << 20) else {
                    return;
                };
                let at = counters.checked_add(16_u64.next_multiple_of(align));
                match (vtable.and_then(|vtable| self.layouts.owned_by_vtable(process, vtable)), at) {
                    (Some(layout), Some(at)) => self.enqueue(number, layout, at),
                    _ => {
                        if let Some(object) = self.found.objects.get_mut(number as usize) {
                            object.cut = true;
                        }
                    }
                }
            }
            Content::Slice { of, offset, stride } => {
                let length = behind.and_then(|at| process.memory.word(at)).unwrap_or(0).min(1 << 20);
                let layout = self.layouts.of(Interest::Handles, *of);
                let (Some(layout), Some(first)) = (layout, counters.checked_add(*offset)) else {
                    return;
                };
                for index in 0..length {
                    if let Some(at) = index.checked_mul(*stride).and_then(|offset| first.checked_add(offset))
                    {
                        self.enqueue(number, layout, at);
                    }
                }
            }
        }
    }

    fn enqueue(&mut self, number: u32, layout: &'w Layout, at: Address) {
        if let Some(object) = self.found.objects.get_mut(number as usize)
            && object.value.is_null()
        {
            object.value = at;
        }
        if self.queued.len() >= MAX_QUEUED {
            self.cut = true;
            if let Some(object) = self.found.objects.get_mut(number as usize) {
                object.cut = true;
            }
        } else if self.queued.insert((at, layout.id)) {
            self.queue.push((number, layout, at));
        }
    }
}
