//! Collections of futures.

use std::rc::Rc;

use super::{Dyn, Plan, Plans};
use crate::debuginfo::types::{Member, Shape, Type, TypeId};
use crate::tasks::process::Program;
use crate::tasks::route::Route;

/// Halves of a stream, and the way from each to the whole (tokio 1.40 to 1.54): of `tokio::io::split`, in a mutex of
/// std's or of parking_lot's.
const HALVES: &[(&str, &str)] = &[
    ("tokio::net::tcp::split_owned::OwnedReadHalf", "inner *"),
    ("tokio::net::tcp::split_owned::OwnedWriteHalf", "inner *"),
    ("tokio::net::tcp::split::ReadHalf", "__0 *"),
    ("tokio::net::tcp::split::WriteHalf", "__0 *"),
    ("tokio::net::unix::split_owned::OwnedReadHalf", "inner *"),
    ("tokio::net::unix::split_owned::OwnedWriteHalf", "inner *"),
    ("tokio::net::unix::split::ReadHalf", "__0 *"),
    ("tokio::net::unix::split::WriteHalf", "__0 *"),
    ("tokio::io::split::ReadHalf", SPLIT),
    ("tokio::io::split::WriteHalf", SPLIT),
    ("futures_util::stream::stream::split::SplitStream", BI_LOCK),
    ("futures_util::stream::stream::split::SplitSink", BI_LOCK),
    ("futures_util::io::split::ReadHalf", BI_LOCK),
    ("futures_util::io::split::WriteHalf", BI_LOCK),
];
/// futures 0.3: both halves share a `BiLock`.
const BI_LOCK: &str = "~futures_util::lock::bilock::BiLock arc * value";
const SPLIT: &str = "inner * stream data value";

/// Where the futures of a collection are.
#[derive(Debug)]
pub(in crate::tasks) enum Container {
    /// `count` of them, one behind the other.
    Array { plan: Rc<Plan>, stride: u64, count: u64 },
    /// A pointer and a length, each with its offset.
    Slice { plan: Rc<Plan>, stride: u64, pointer: u64, length: u64 },
    /// `SmallVec`: up to `room` of them are stored in the value itself; more are behind a pointer. Each other number is
    /// an offset; `capacity` is the length while they are in the value.
    Small { plan: Rc<Plan>, stride: u64, room: u64, capacity: u64, inline: u64, pointer: u64, length: u64 },
    /// Linked lists: ways to the heads, then offsets of the link and of the future in each node.
    Lists { plan: Rc<Plan>, heads: Box<[Route]>, next: u64, value: u64 },
    /// One, behind an `Arc` that several share.
    Shared { plan: Rc<Plan>, way: Route },
    /// The branches of a `tokio::select!`, each with its number and its offset in the tuple of them all, and
    /// the bits of those that are not polled: their `if` did not hold, or they have ended.
    Select { disabled: Route, size: u64, tuple: Route, branches: Box<[(u32, u64, Rc<Plan>)]> },
}

/// The way from the closure of a `tokio::select!` to the tuple of its futures.
pub(crate) fn futures_of_select(program: &Program<'_, '_>, id: TypeId) -> Option<Route> {
    ["_ref__futures *", "_ref__futures * *"].iter().find_map(|way| {
        let tuple = Route::compile(program, id, way)?;
        program.ty(tuple.end)?.name.starts_with('(').then_some(tuple)
    })
}

impl Plans<'_, '_> {
    /// The collection that `ty` is; `None` for any other type, and for collections without futures.
    pub(super) fn container(&self, id: TypeId, ty: &Type) -> Option<Container> {
        match ty.path() {
            "alloc::vec::Vec" => self.vec(id, ty),
            "smallvec::SmallVec" => self.small_vec(id, ty),
            "futures_util::stream::futures_unordered::FuturesUnordered" => self.futures_unordered(id),
            "tokio::util::idle_notified_set::IdleNotifiedSet" => self.idle_notified_set(id),
            "futures_util::future::future::shared::Shared" => {
                let way = Route::compile(&self.program, id, "inner * future_or_output")?;
                Some(Container::Shared { plan: self.some_plan(way.end)?, way })
            }
            path if let Some((_, way)) = HALVES.iter().find(|(half, _)| *half == path) => {
                let way = Route::compile(&self.program, id, way)?;
                Some(Container::Shared { plan: self.some_plan(way.end)?, way })
            }
            _ => self.slice(ty).or_else(|| self.array(ty)).or_else(|| self.select(id, ty)),
        }
    }

    /// The pointer with a vtable that a `ReusableBoxFuture` has.
    pub(super) fn reusable_box(&self, id: TypeId, ty: &Type) -> Option<Dyn> {
        if !ty.path().ends_with("::reusable_box::ReusableBoxFuture") {
            return None;
        }
        let at = |field: &str| Route::compile(&self.program, id, field)?.offset();
        Some(Dyn::boxed_future(
            self.opaque(id, &ty.name),
            (at("data_ptr").or_else(|| at("pointer"))?, at("vtable")?),
        ))
    }

    fn some_plan(&self, id: TypeId) -> Option<Rc<Plan>> {
        self.plan(id).filter(|plan| !plan.is_nothing())
    }

    /// `Box<[T]>` and `&mut [T]`: a struct of a pointer and a length.
    fn slice(&self, ty: &Type) -> Option<Container> {
        if !ty.name.starts_with("alloc::boxed::Box<[") && !ty.name.starts_with("&mut [") {
            return None;
        }
        let pointer = ty.member("data_ptr")?;
        let Shape::Pointer(Some(element)) = self.program.ty(pointer.of)?.shape else { return None };
        let length = ty.member("length")?.offset;
        let stride = self.program.ty(element)?.size;
        Some(Container::Slice { plan: self.some_plan(element)?, stride, pointer: pointer.offset, length })
    }

    fn array(&self, ty: &Type) -> Option<Container> {
        let Shape::Array { element, count } = ty.shape else { return None };
        let stride = self.program.ty(element)?.size;
        Some(Container::Array { plan: self.some_plan(element)?, stride, count })
    }

    /// `macros/select.rs`: a closure that has references to the bits `disabled` and to the tuple `futures`;
    /// before the edition 2021, to the reference to that.
    fn select(&self, id: TypeId, ty: &Type) -> Option<Container> {
        ty.member("_ref__disabled").and(ty.member("_ref__futures"))?;
        let disabled = Route::compile(&self.program, id, "_ref__disabled *")?;
        let size = self.program.ty(disabled.end)?.size;
        let tuple = futures_of_select(&self.program, id)?;
        let branch = |member: &Member| {
            let number = member.name.strip_prefix("__")?.parse().ok()?;
            Some((number, member.offset, self.future(member.of).filter(|plan| !plan.is_nothing())?))
        };
        let mut branches: Vec<_> = self.program.ty(tuple.end)?.members.iter().filter_map(branch).collect();
        branches.sort_by_key(|(number, ..)| *number);
        Some(Container::Select { disabled, size, tuple, branches: branches.into() })
    }

    fn vec(&self, id: TypeId, ty: &Type) -> Option<Container> {
        let element = ty.parameter("T")?;
        let stride = self.program.ty(element)?.size;
        let plan = self.some_plan(element)?;
        let pointer = Route::compile(&self.program, id, "buf ptr pointer")?.offset()?;
        let length = Route::compile(&self.program, id, "len")?.offset()?;
        Some(Container::Slice { plan, stride, pointer, length })
    }

    /// smallvec 1: `data` is an enum, or a union where the crate's feature `union` is on.
    fn small_vec(&self, id: TypeId, ty: &Type) -> Option<Container> {
        let Shape::Array { element, count } = self.program.ty(ty.parameter("A")?)?.shape else { return None };
        let offset = |way: &str| Route::compile(&self.program, id, way)?.offset();
        let either = |of_enum: &str, of_union: &str| offset(of_enum).or_else(|| offset(of_union));
        Some(Container::Small {
            plan: self.some_plan(element)?,
            stride: self.program.ty(element)?.size,
            room: count,
            capacity: offset("capacity")?,
            inline: either("data Inline __0", "data inline")?,
            pointer: either("data Heap ptr pointer", "data heap __0 pointer")?,
            length: either("data Heap len", "data heap __1")?,
        })
    }

    /// `futures_unordered/{mod,task}.rs`: a list of `Task { future, next_all, … }` from `head_all` on.
    fn futures_unordered(&self, id: TypeId) -> Option<Container> {
        let head = Route::compile(&self.program, id, "head_all")?;
        let task = Route::compile(&self.program, head.end, "*")?.end;
        let next = Route::compile(&self.program, task, "next_all")?.offset()?;
        let future = Route::compile(&self.program, task, "future")?;
        self.program.ty(id)?.parameter("Fut").and_then(|of| self.future(of));
        let plan = self.some_plan(future.end)?;
        Some(Container::Lists { plan, heads: [head].into(), next, value: future.offset()? })
    }

    /// `util/idle_notified_set.rs`: what a `JoinSet` is made of.
    fn idle_notified_set(&self, id: TypeId) -> Option<Container> {
        let head = |list: &str| Route::compile(&self.program, id, &format!("lists * {list} head"));
        let heads = [head("notified")?, head("idle")?];
        let entry = Route::compile(&self.program, heads[0].end, "*")?.end;
        let next = Route::compile(&self.program, entry, "pointers next")?.offset()?;
        let value = Route::compile(&self.program, entry, "value")?;
        let plan = self.some_plan(value.end)?;
        Some(Container::Lists { plan, heads: heads.into(), next, value: value.offset()? })
    }
}
