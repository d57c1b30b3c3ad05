//! Collections: several values of one type, and where each of them lies.

use std::rc::Rc;

use super::plan::{Plan, Plans};
use crate::debuginfo::types::{Shape, Type, TypeId};
use crate::tasks::memory::Memory;
use crate::tasks::process::Process;
use crate::tasks::route::Route;

/// Values of one collection that are looked at.
const MAX_ELEMENTS: u64 = 1 << 20;
/// Nodes of a tree, buckets of a table.
const MAX_SLOTS: u64 = 1 << 22;
/// Higher than a `BTreeMap` of 2^64 entries.
const MAX_HEIGHT: u64 = 24;

/// Several values of one type.
#[derive(Debug)]
pub(super) struct Many {
    pub(super) plan: Rc<Plan>,
    stride: u64,
    layout: Layout,
}

/// How they lie.
#[derive(Debug)]
enum Layout {
    /// So many, one behind the other.
    Array { count: u64 },
    /// A pointer and a length, each with its offset: `Vec`, `Box<[T]>`; of a `Vec`, its capacity.
    Slice { pointer: u64, length: u64, capacity: Option<u64> },
    /// `VecDeque`.
    Ring { pointer: u64, capacity: u64, head: u64, length: u64 },
    /// hashbrown's `RawTable`: control bytes upwards from `ctrl`, values downwards from it.
    Table { ctrl: u64, mask: u64, items: u64 },
    /// Linked lists: ways to the heads, then offsets of the link and of the value in each node.
    Lists { heads: Box<[Route]>, next: u64, value: u64 },
    /// `BTreeMap`: keys or values in every node, children in those above the leaves.
    Tree { root: Route, height: Route, values: u64, length: u64, edges: u64 },
    /// Messages in a channel of tokio's: blocks of slots from `head` on.
    Messages {
        head: Route,
        first: Route,
        end: Route,
        start: u64,
        ready: u64,
        next: u64,
        values: u64,
        slots: u64,
    },
}

impl Plans<'_, '_, '_> {
    /// The collection that `ty` is; `Some(None)` for one of values that own nothing of interest.
    pub(super) fn collection(&self, id: TypeId, ty: &Type) -> Option<Option<Many>> {
        let many = match ty.path() {
            "alloc::vec::Vec" => self.vec(id, ty),
            "alloc::collections::vec_deque::VecDeque" => self.ring(id, ty),
            "alloc::collections::btree::map::BTreeMap" => self.tree(id, ty),
            "hashbrown::raw::RawTable" => self.table(id, ty),
            "futures_util::stream::futures_unordered::FuturesUnordered" => self.futures_unordered(id),
            "tokio::util::idle_notified_set::IdleNotifiedSet" => self.idle_notified_set(id),
            _ if matches!(ty.shape, Shape::Array { .. }) => self.array(ty),
            _ if ty.name.starts_with("alloc::boxed::Box<[") || ty.name.starts_with("&mut [") => {
                self.boxed_slice(ty)
            }
            _ => return None,
        };
        Some(many)
    }

    fn many(&self, of: TypeId, layout: Layout) -> Option<Many> {
        let plan = self.plan(of).filter(|plan| !plan.is_nothing())?;
        let stride = self.process.ty(of)?.size;
        (stride > 0).then_some(Many { plan, stride, layout })
    }

    fn offset(&self, id: TypeId, way: &str) -> Option<u64> {
        Route::compile(self.process, id, way)?.offset()
    }

    fn array(&self, ty: &Type) -> Option<Many> {
        let Shape::Array { element, count } = ty.shape else { return None };
        self.many(element, Layout::Array { count })
    }

    fn vec(&self, id: TypeId, ty: &Type) -> Option<Many> {
        let layout = Layout::Slice {
            pointer: self.offset(id, "buf ptr pointer")?,
            length: self.offset(id, "len")?,
            capacity: self.offset(id, "buf cap"),
        };
        self.many(ty.parameter("T")?, layout)
    }

    fn boxed_slice(&self, ty: &Type) -> Option<Many> {
        let pointer = ty.member("data_ptr")?;
        let Shape::Pointer(Some(element)) = self.process.ty(pointer.of)?.shape else { return None };
        let length = ty.member("length")?.offset;
        self.many(element, Layout::Slice { pointer: pointer.offset, length, capacity: None })
    }

    fn ring(&self, id: TypeId, ty: &Type) -> Option<Many> {
        let layout = Layout::Ring {
            pointer: self.offset(id, "buf ptr pointer")?,
            capacity: self.offset(id, "buf cap")?,
            head: self.offset(id, "head")?,
            length: self.offset(id, "len")?,
        };
        self.many(ty.parameter("T")?, layout)
    }

    fn table(&self, id: TypeId, ty: &Type) -> Option<Many> {
        let layout = Layout::Table {
            ctrl: self.offset(id, "table ctrl pointer")?,
            mask: self.offset(id, "table bucket_mask")?,
            items: self.offset(id, "table items")?,
        };
        self.many(ty.parameter("T")?, layout)
    }

    /// `futures_unordered/{mod,task}.rs`: a list of `Task { future, next_all, … }` from `head_all` on.
    fn futures_unordered(&self, id: TypeId) -> Option<Many> {
        let head = Route::compile(self.process, id, "head_all")?;
        let task = Route::compile(self.process, head.end, "*")?.end;
        let future = Route::compile(self.process, task, "future")?;
        let (next, value) = (self.offset(task, "next_all")?, future.offset()?);
        self.many(future.end, Layout::Lists { heads: [head].into(), next, value })
    }

    /// `util/idle_notified_set.rs`: what a `JoinSet` is made of.
    fn idle_notified_set(&self, id: TypeId) -> Option<Many> {
        let head = |list: &str| Route::compile(self.process, id, &format!("lists * {list} head"));
        let heads = [head("notified")?, head("idle")?];
        let entry = Route::compile(self.process, heads[0].end, "*")?.end;
        let value = Route::compile(self.process, entry, "value")?;
        let (next, offset) = (self.offset(entry, "pointers next")?, value.offset()?);
        self.many(value.end, Layout::Lists { heads: heads.into(), next, value: offset })
    }

    /// `collections/btree/node.rs`: the values of each node; keys seldom own anything.
    fn tree(&self, id: TypeId, ty: &Type) -> Option<Many> {
        let root = Route::compile(self.process, id, "root node pointer")?;
        let node = Route::compile(self.process, root.end, "*")?.end;
        let parent = Route::compile(self.process, node, "parent *")?.end;
        let layout = Layout::Tree {
            height: Route::compile(self.process, id, "root height")?,
            root,
            values: self.offset(node, "vals")?,
            length: self.offset(node, "len")?,
            edges: self.offset(parent, "edges")?,
        };
        self.many(ty.parameter("V")?, layout)
    }

    /// `sync/mpsc/{chan,list,block}.rs`: what was sent and not yet received.
    pub(super) fn messages(&self, id: TypeId, ty: &Type) -> Option<Many> {
        let route = |way: &str| Route::compile(self.process, id, way);
        let head = route("rx_fields list head pointer")?;
        let block = Route::compile(self.process, head.end, "*")?.end;
        let values = Route::compile(self.process, block, "values __0")?;
        let Shape::Array { count, .. } = self.process.ty(values.end)?.shape else { return None };
        let layout = Layout::Messages {
            head,
            first: route("rx_fields list index")?,
            end: route("tx tail_position")?,
            start: self.offset(block, "header start_index")?,
            ready: self.offset(block, "header ready_slots")?,
            next: self.offset(block, "header next")?,
            values: values.offset()?,
            slots: count,
        };
        self.many(ty.parameter("T")?, layout)
    }
}

impl Many {
    /// Calls `visit` with the address of each value of the collection at `at`; says whether that were all.
    pub(super) fn each(&self, process: &Process<'_, '_>, at: u64, mut visit: impl FnMut(u64)) -> bool {
        self.try_each(process, at, &mut visit).unwrap_or(true)
    }

    /// `None` where a pointer is null or leads nowhere.
    fn try_each(&self, process: &Process<'_, '_>, at: u64, visit: &mut impl FnMut(u64)) -> Option<bool> {
        let memory = &process.memory;
        let word = |offset: u64| memory.word(at.checked_add(offset)?);
        match &self.layout {
            Layout::Array { count } => Some(self.row(at, 0, *count, visit)),
            Layout::Slice { pointer, length, capacity } => {
                let (first, length) = (not_null(word(*pointer)?)?, word(*length)?);
                let capacity = capacity.map_or(Some(length), word)?;
                // Garbage: nobody knows what was there.
                if length > capacity {
                    return Some(false);
                }
                Some(self.row(first, 0, length, visit))
            }
            Layout::Ring { pointer, capacity, head, length } => {
                let (first, head, length) = (not_null(word(*pointer)?)?, word(*head)?, word(*length)?);
                let capacity = word(*capacity)?;
                if length > capacity {
                    return Some(false);
                }
                let before_end = length.min(capacity.checked_sub(head)?);
                let all = self.row(first, head, before_end, visit);
                Some(all & self.row(first, 0, length.checked_sub(before_end)?, visit))
            }
            Layout::Table { ctrl, mask, items } => {
                self.table(memory, word(*ctrl)?, word(*mask)?, word(*items)?, visit)
            }
            Layout::Lists { heads, next, value } => {
                let mut all = true;
                for head in heads {
                    let first = head.follow(process, at).and_then(|head| memory.word(head));
                    if let Some(first) = first.filter(|first| *first != 0) {
                        all &= list(memory, first, (*next, *value), visit);
                    }
                }
                Some(all)
            }
            Layout::Tree { root, height, .. } => {
                let root = memory.word(root.follow(process, at)?).filter(|root| *root != 0)?;
                let height = memory.word(height.follow(process, at)?)?;
                let mut left = MAX_ELEMENTS;
                (height <= MAX_HEIGHT).then(|| self.node(memory, root, height, &mut left, visit).is_some())
            }
            Layout::Messages { head, first, end, .. } => {
                let head = memory.word(head.follow(process, at)?)?;
                let (first, end) =
                    (memory.word(first.follow(process, at)?)?, memory.word(end.follow(process, at)?)?);
                self.messages(memory, head, first, end, visit)
            }
        }
    }

    /// At most `MAX_ELEMENTS`; says whether those were all.
    fn row(&self, first: u64, from: u64, count: u64, visit: &mut impl FnMut(u64)) -> bool {
        for index in from..from.saturating_add(count.min(MAX_ELEMENTS)) {
            let Some(at) = index.checked_mul(self.stride).and_then(|offset| first.checked_add(offset)) else {
                return true;
            };
            visit(at);
        }
        count <= MAX_ELEMENTS
    }

    /// A control byte with its highest bit clear stands for a value.
    fn table(
        &self,
        memory: &Memory<'_>,
        ctrl: u64,
        mask: u64,
        items: u64,
        visit: &mut impl FnMut(u64),
    ) -> Option<bool> {
        if mask >= MAX_SLOTS {
            return Some(false);
        }
        let mut left = items;
        let mut index = 0;
        while index <= mask && left > 0 {
            let group = memory.word(ctrl.checked_add(index)?)?.to_le_bytes();
            for (bucket, control) in (index..=mask).zip(group) {
                if control & 0x80 == 0 && left > 0 {
                    visit(ctrl.checked_sub((bucket + 1).checked_mul(self.stride)?)?);
                    left -= 1;
                }
            }
            index += 8;
        }
        Some(true)
    }

    /// The height is that above the leaves, which bounds the recursion.
    fn node(
        &self,
        memory: &Memory<'_>,
        node: u64,
        height: u64,
        left: &mut u64,
        visit: &mut impl FnMut(u64),
    ) -> Option<()> {
        let Layout::Tree { values, length, edges, .. } = &self.layout else { return None };
        // `CAPACITY` of `btree/node.rs` is 11.
        let length = memory.number(node.checked_add(*length)?, 2)?.min(11);
        *left = left.checked_sub(length)?;
        self.row(node.checked_add(*values)?, 0, length, visit);
        if height > 0 {
            for edge in 0..=length {
                let child = memory.word(node.checked_add(*edges)?.checked_add(edge * 8)?)?;
                self.node(memory, child, height - 1, left, visit)?;
            }
        }
        Some(())
    }

    fn messages(
        &self,
        memory: &Memory<'_>,
        head: u64,
        first: u64,
        end: u64,
        visit: &mut impl FnMut(u64),
    ) -> Option<bool> {
        let Layout::Messages { start, ready, next, values, slots, .. } = &self.layout else { return None };
        let count = end.checked_sub(first)?;
        let mut block = head;
        let mut index = first;
        for _ in 0..MAX_ELEMENTS {
            if index >= end || block == 0 {
                break;
            }
            let word = |offset: &u64| memory.word(block.checked_add(*offset)?);
            let slot = index.checked_sub(word(start)?)?;
            if slot >= *slots {
                block = word(next)?;
                continue;
            }
            if word(ready)? >> slot.min(63) & 1 == 1 {
                self.row(block.checked_add(*values)?, slot, 1, visit);
            }
            index += 1;
        }
        Some(count <= MAX_ELEMENTS)
    }
}

fn list(memory: &Memory<'_>, first: u64, (next, value): (u64, u64), visit: &mut impl FnMut(u64)) -> bool {
    let mut node = first;
    for _ in 0..MAX_ELEMENTS {
        let Some(at) = node.checked_add(value) else { return true };
        visit(at);
        match node.checked_add(next).and_then(|link| memory.word(link)) {
            Some(link) if link != first && link != 0 => node = link,
            _ => return true,
        }
    }
    false
}

fn not_null(word: u64) -> Option<u64> {
    (word != 0).then_some(word)
}
