//! Routes through a type by the names of its fields: `receiver * shared * num_tx`.
//!
//! Offsets are never written down. A field is searched for by name, breadth first through the wrappers
//! around it (cells, cache padding, `Option`), so that most rewrites inside tokio change nothing here.

use std::collections::{HashSet, VecDeque};

use super::process::{Process, Program};
use crate::debuginfo::types::{Member, Shape, Type, TypeId};
use crate::snapshot::Address;

/// How many wrappers deep a field is searched for.
const MAX_DEPTH: usize = 8;
/// The most types that are searched for one field.
const MAX_TYPES: usize = 400;

/// A compiled route: run with [`Route::follow`].
#[derive(Debug, Clone)]
pub(crate) struct Route {
    hops: Box<[Hop]>,
    /// The type at its end.
    pub(crate) end: TypeId,
}

#[derive(Debug, Clone, Copy)]
enum Hop {
    Add(u64),
    Deref,
}

impl Route {
    /// Compiles `way` from `start`: names of fields, and `*` for following a pointer, reference, `Box` or `Arc`,
    /// `~path` for a field by its type. `None` if there is no such field.
    pub(crate) fn compile(program: &Program<'_>, start: TypeId, way: &str) -> Option<Self> {
        let mut at = start;
        let mut hops = Vec::new();
        for part in way.split_whitespace() {
            if part == "*" {
                let (offset, target) = pointer(program, at)?;
                hops.extend([Hop::Add(offset), Hop::Deref]);
                at = target;
                // The counters of an `Arc` or `Rc` are stored before its value.
                let ty = program.ty(at)?;
                if matches!(ty.path(), "alloc::sync::ArcInner" | "alloc::rc::RcInner") {
                    let value = ty.member("data").or_else(|| ty.member("value"))?;
                    hops.push(Hop::Add(value.offset));
                    at = value.of;
                }
            } else {
                let (offset, of) = match part.strip_prefix('~') {
                    Some(path) => of_type(program, at, path)?,
                    None => field(program, at, part)?,
                };
                hops.push(Hop::Add(offset));
                at = of;
            }
        }
        Some(Self { hops: hops.into(), end: at })
    }

    /// The address at the end of the route from `start`; `None` at a null or unreadable pointer.
    pub(crate) fn follow(&self, process: &Process<'_, '_>, start: Address) -> Option<Address> {
        let mut at = start;
        for hop in &self.hops {
            match hop {
                Hop::Add(offset) => at = at.checked_add(*offset)?,
                Hop::Deref => at = process.memory.pointer(at)?,
            }
        }
        Some(at)
    }

    /// The word at the end of the route from `start`.
    pub(crate) fn word(&self, process: &Process<'_, '_>, start: Address) -> Option<u64> {
        process.memory.word(self.follow(process, start)?)
    }

    /// The same as an address, which may be null.
    pub(crate) fn address(&self, process: &Process<'_, '_>, start: Address) -> Option<Address> {
        self.word(process, start).map(Address::new)
    }

    /// The same route from `offset` bytes before its start.
    pub(crate) fn behind(self, offset: u64) -> Self {
        let hops = std::iter::once(Hop::Add(offset)).chain(self.hops.iter().copied()).collect();
        Self { hops, end: self.end }
    }

    /// The offset from the start, if the route follows no pointer.
    pub(crate) fn offset(&self) -> Option<u64> {
        self.hops.iter().try_fold(0_u64, |sum, hop| match hop {
            Hop::Add(offset) => sum.checked_add(*offset),
            Hop::Deref => None,
        })
    }
}

/// The nearest field called `name` in or below `start`.
fn field(program: &Program<'_>, start: TypeId, name: &str) -> Option<(u64, TypeId)> {
    search(program, start, |member, _| (member.name == name).then_some(member.of))
}

/// The nearest field in or below `start` whose type has that path.
fn of_type(program: &Program<'_>, start: TypeId, path: &str) -> Option<(u64, TypeId)> {
    if program.ty(start)?.path() == path {
        return Some((0, start));
    }
    search(program, start, |member, ty| (ty.path() == path).then_some(member.of))
}

/// The nearest thin pointer in or below `start`, with its target.
fn pointer(program: &Program<'_>, start: TypeId) -> Option<(u64, TypeId)> {
    if let Shape::Pointer(target) = program.ty(start)?.shape {
        return Some((0, target?));
    }
    search(program, start, |_, ty| match ty.shape {
        Shape::Pointer(target) => target,
        _ => None,
    })
}

fn search(
    program: &Program<'_>,
    start: TypeId,
    wanted: impl Fn(&Member, &Type) -> Option<TypeId>,
) -> Option<(u64, TypeId)> {
    let mut seen = HashSet::from([start]);
    let mut queue = VecDeque::from([(start, 0_u64, 0)]);
    while let Some((id, base, depth)) = queue.pop_front() {
        let Some(ty) = program.ty(id) else { continue };
        let variants = match &ty.shape {
            Shape::Variants(variants) => variants.list.as_slice(),
            _ => &[],
        };
        for member in ty.members.iter().chain(variants.iter().map(|variant| &variant.member)) {
            let Some(of) = program.ty(member.of) else { continue };
            let offset = base.checked_add(member.offset)?;
            if let Some(found) = wanted(member, &of) {
                return Some((offset, found));
            }
            if depth < MAX_DEPTH && seen.len() < MAX_TYPES && seen.insert(member.of) {
                queue.push_back((member.of, offset, depth + 1));
            }
        }
    }
    None
}
