//! Reads memory by a layout: the variant, the state, the values of a collection.

use super::model::{Case, Collection, Coroutine, Select, State, Storage, Variants};
use crate::snapshot::Address;
use crate::tasks::memory::Memory;
use crate::tasks::process::Process;

/// Nodes of a tree, buckets of a table.
const MAX_SLOTS: u64 = 1 << 22;
/// Higher than a `BTreeMap` of 2^64 entries.
const MAX_HEIGHT: u64 = 24;

/// How much of a collection was visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visited {
    All,
    /// It has more values than were to be visited.
    Some,
    /// What is there is no such collection (any more): it is not known which values it had.
    Garbage,
}

impl Visited {
    fn all_if(is_all: bool) -> Self {
        if is_all { Self::All } else { Self::Some }
    }
}

/// A walk through one collection.
struct Each<'c, 'm> {
    collection: &'c Collection,
    memory: &'c Memory<'m>,
    /// Values that are visited.
    most: u64,
}

impl Variants {
    /// The case of the enum at `base`, with its number.
    pub(crate) fn case(&self, memory: &Memory<'_>, base: Address) -> Option<(usize, &Case)> {
        let value = self.discriminant.and_then(|place| memory.discriminant(place, base));
        let exact = self.cases.iter().position(|case| value.is_some() && case.value == value);
        let number = exact.or_else(|| self.cases.iter().position(|case| case.value.is_none()))?;
        Some((number, self.cases.get(number)?))
    }
}

impl Coroutine {
    /// The state of the coroutine at `base`, with its number; `None` for one that its type does not have.
    pub(crate) fn state(&self, memory: &Memory<'_>, base: Address) -> Option<(usize, &State)> {
        let value = memory.discriminant(self.at, base)?;
        let number = self.states.iter().position(|state| state.value == value)?;
        Some((number, self.states.get(number)?))
    }
}

impl Select {
    /// The bits of the branches that are not polled.
    pub(crate) fn disabled(&self, process: &Process<'_, '_>, at: Address) -> u64 {
        let bits = self.disabled.follow(process, at);
        bits.and_then(|at| process.memory.number(at, self.size)).unwrap_or(0)
    }
}

impl Collection {
    /// Calls `visit` with the address of each value of the collection at `at`, up to `most` of them.
    pub(crate) fn each(
        &self,
        process: &Process<'_, '_>,
        at: Address,
        most: u64,
        mut visit: impl FnMut(Address),
    ) -> Visited {
        let each = Each { collection: self, memory: &process.memory, most };
        each.values(process, at, &mut visit).unwrap_or(Visited::All)
    }
}

impl Each<'_, '_> {
    /// `None` if a pointer is null or invalid.
    fn values(
        &self,
        process: &Process<'_, '_>,
        at: Address,
        visit: &mut impl FnMut(Address),
    ) -> Option<Visited> {
        let memory = self.memory;
        let word = |offset: u64| memory.word(at.checked_add(offset)?);
        let pointer_at = |offset: u64| memory.pointer(at.checked_add(offset)?);
        Some(match &self.collection.storage {
            Storage::Array { count } => Visited::all_if(self.row(at, 0, *count, visit)),
            Storage::Slice { pointer, length, capacity } => {
                let (first, length) = (pointer_at(*pointer)?, word(*length)?);
                let capacity = capacity.map_or(Some(length), word)?;
                if length > capacity {
                    return Some(Visited::Garbage);
                }
                Visited::all_if(self.row(first, 0, length, visit))
            }
            Storage::Small { room, capacity, inline, pointer, length } => {
                let (first, count) = match word(*capacity)? {
                    count if count <= *room => (at.checked_add(*inline)?, count),
                    _ => (pointer_at(*pointer)?, word(*length)?),
                };
                Visited::all_if(self.row(first, 0, count, visit))
            }
            Storage::Ring { pointer, capacity, head, length } => {
                let (first, head, length) = (pointer_at(*pointer)?, word(*head)?, word(*length)?);
                let capacity = word(*capacity)?;
                if length > capacity {
                    return Some(Visited::Garbage);
                }
                let before_end = length.min(capacity.checked_sub(head)?);
                let all = self.row(first, head, before_end, visit);
                Visited::all_if(all & self.row(first, 0, length.checked_sub(before_end)?, visit))
            }
            Storage::Table { ctrl, mask, items } => {
                self.table(memory.address(at.checked_add(*ctrl)?)?, word(*mask)?, word(*items)?, visit)?
            }
            Storage::Lists { heads, next, value } => {
                let mut all = true;
                for head in heads {
                    let first = head.follow(process, at).and_then(|head| memory.pointer(head));
                    if let Some(first) = first {
                        all &= self.list(first, (*next, *value), visit);
                    }
                }
                Visited::all_if(all)
            }
            Storage::Tree { root, height, .. } => {
                let root = memory.pointer(root.follow(process, at)?)?;
                let height = height.word(process, at)?;
                let mut left = self.most;
                if height > MAX_HEIGHT {
                    return Some(Visited::Garbage);
                }
                Visited::all_if(self.node(root, height, &mut left, visit).is_some())
            }
            Storage::Messages { head, first, end, .. } => {
                let (first, end) = (first.word(process, at)?, end.word(process, at)?);
                Visited::all_if(self.messages(head.address(process, at)?, first, end, visit)?)
            }
        })
    }

    /// `count` consecutive values, from number `from` on.
    fn row(&self, first: Address, from: u64, count: u64, visit: &mut impl FnMut(Address)) -> bool {
        for index in from..from.saturating_add(count.min(self.most)) {
            let Some(at) =
                index.checked_mul(self.collection.stride).and_then(|offset| first.checked_add(offset))
            else {
                return true;
            };
            visit(at);
        }
        count <= self.most
    }

    /// A control byte whose highest bit is clear marks a value.
    fn table(
        &self,
        ctrl: Address,
        mask: u64,
        items: u64,
        visit: &mut impl FnMut(Address),
    ) -> Option<Visited> {
        // The number of buckets is a power of two.
        if mask & mask.wrapping_add(1) != 0 || items > mask.saturating_add(1) {
            return Some(Visited::Garbage);
        }
        if mask >= MAX_SLOTS {
            return Some(Visited::Some);
        }
        let mut left = items;
        let mut index = 0;
        while index <= mask && left > 0 {
            let group = self.memory.word(ctrl.checked_add(index)?)?.to_le_bytes();
            for (bucket, control) in (index..=mask).zip(group) {
                if control & 0x80 == 0 && left > 0 {
                    visit(ctrl.checked_sub((bucket + 1).checked_mul(self.collection.stride)?)?);
                    left -= 1;
                }
            }
            index += 8;
        }
        Some(Visited::All)
    }

    /// `height` is counted from the leaves, and bounds the recursion.
    fn node(
        &self,
        node: Address,
        height: u64,
        left: &mut u64,
        visit: &mut impl FnMut(Address),
    ) -> Option<()> {
        let Storage::Tree { values, length, edges, .. } = &self.collection.storage else { return None };
        // `CAPACITY` of `btree/node.rs` is 11.
        let length = self.memory.number(node.checked_add(*length)?, 2)?.min(11);
        *left = left.checked_sub(length)?;
        self.row(node.checked_add(*values)?, 0, length, visit);
        if height > 0 {
            for edge in 0..=length {
                let child = self.memory.address(node.checked_add(*edges)?.checked_add(edge * 8)?)?;
                self.node(child, height - 1, left, visit)?;
            }
        }
        Some(())
    }

    fn messages(&self, head: Address, first: u64, end: u64, visit: &mut impl FnMut(Address)) -> Option<bool> {
        let Storage::Messages { start, ready, next, values, slots, .. } = &self.collection.storage else {
            return None;
        };
        let count = end.checked_sub(first)?;
        let mut block = head;
        let mut index = first;
        for _ in 0..self.most {
            if index >= end || block.is_null() {
                break;
            }
            let word = |offset: &u64| self.memory.word(block.checked_add(*offset)?);
            let slot = index.checked_sub(word(start)?)?;
            if slot >= *slots {
                block = self.memory.address(block.checked_add(*next)?)?;
                continue;
            }
            if word(ready)? >> slot.min(63) & 1 == 1 {
                self.row(block.checked_add(*values)?, slot, 1, visit);
            }
            index += 1;
        }
        Some(count <= self.most)
    }

    fn list(&self, first: Address, (next, value): (u64, u64), visit: &mut impl FnMut(Address)) -> bool {
        let mut node = first;
        for _ in 0..self.most {
            let Some(at) = node.checked_add(value) else { return true };
            visit(at);
            match node.checked_add(next).and_then(|link| self.memory.pointer(link)) {
                Some(link) if link != first => node = link,
                _ => return true,
            }
        }
        false
    }
}
