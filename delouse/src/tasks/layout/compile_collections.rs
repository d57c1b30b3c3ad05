//! Collections, and futures that are reached by routes of their own.

use super::compile::Compiler;
use super::model::{Body, Collection, Field, Interest, Layout, LayoutId, Select, Storage};
use crate::debuginfo::types::{Member, Shape, Type, TypeId};
use crate::tasks::route::Route;

/// Halves of a stream, and the route from each to the whole stream (tokio 1.40 to 1.54; of `tokio::io::split`, through
/// a mutex of std or of parking_lot).
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

impl Compiler<'_, '_> {
    /// The collection that `ty` is; `Some(None)` for a collection with nothing of interest.
    pub(super) fn collection(&self, id: TypeId, ty: &Type) -> Option<Option<Collection>> {
        let owns = self.interest == Interest::Handles;
        Some(match ty.path() {
            "alloc::vec::Vec" => self.vec(id, ty),
            "futures_util::stream::futures_unordered::FuturesUnordered" => self.futures_unordered(id),
            "tokio::util::idle_notified_set::IdleNotifiedSet" => self.idle_notified_set(id),
            "futures_channel::mpsc::queue::Queue" if owns => self.futures_queue(id),
            "smallvec::SmallVec" if !owns => self.small_vec(id, ty),
            "alloc::collections::vec_deque::VecDeque" if owns => self.ring(id, ty),
            "alloc::collections::btree::map::BTreeMap" if owns => self.tree(id, ty),
            "hashbrown::raw::RawTable" if owns => self.table(id, ty),
            _ if matches!(ty.shape, Shape::Array { .. }) => self.array(ty),
            _ if ty.name.starts_with("alloc::boxed::Box<[") || ty.name.starts_with("&mut [") => {
                self.slice(ty)
            }
            _ => return None,
        })
    }

    fn values(&self, of: TypeId, storage: Storage) -> Option<Collection> {
        let element = self.something(of)?;
        let is_walked = self.interest == Interest::Futures || element.size > 0;
        is_walked.then_some(Collection { element: element.id, stride: element.size, storage })
    }

    fn route(&self, id: TypeId, way: &str) -> Option<Route> {
        Route::compile(self.program(), id, way)
    }

    fn offset(&self, id: TypeId, way: &str) -> Option<u64> {
        self.route(id, way)?.offset()
    }

    fn array(&self, ty: &Type) -> Option<Collection> {
        let Shape::Array { element, count } = ty.shape else { return None };
        self.values(element, Storage::Array { count })
    }

    fn vec(&self, id: TypeId, ty: &Type) -> Option<Collection> {
        let storage = Storage::Slice {
            pointer: self.offset(id, "buf ptr pointer")?,
            length: self.offset(id, "len")?,
            capacity: self.offset(id, "buf cap"),
        };
        self.values(ty.parameter("T")?, storage)
    }

    /// `Box<[T]>` and `&mut [T]`: a struct of a pointer and a length.
    fn slice(&self, ty: &Type) -> Option<Collection> {
        let pointer = ty.member("data_ptr")?;
        let Shape::Pointer(Some(element)) = self.program().ty(pointer.of)?.shape else { return None };
        let length = ty.member("length")?.offset;
        self.values(element, Storage::Slice { pointer: pointer.offset, length, capacity: None })
    }

    /// smallvec 1: `data` is an enum, or a union where the crate's feature `union` is on.
    fn small_vec(&self, id: TypeId, ty: &Type) -> Option<Collection> {
        let Shape::Array { element, count } = self.program().ty(ty.parameter("A")?)?.shape else {
            return None;
        };
        let either =
            |of_enum: &str, of_union: &str| self.offset(id, of_enum).or_else(|| self.offset(id, of_union));
        let storage = Storage::Small {
            room: count,
            capacity: self.offset(id, "capacity")?,
            inline: either("data Inline __0", "data inline")?,
            pointer: either("data Heap ptr pointer", "data heap __0 pointer")?,
            length: either("data Heap len", "data heap __1")?,
        };
        self.values(element, storage)
    }

    fn ring(&self, id: TypeId, ty: &Type) -> Option<Collection> {
        let storage = Storage::Ring {
            pointer: self.offset(id, "buf ptr pointer")?,
            capacity: self.offset(id, "buf cap")?,
            head: self.offset(id, "head")?,
            length: self.offset(id, "len")?,
        };
        self.values(ty.parameter("T")?, storage)
    }

    fn table(&self, id: TypeId, ty: &Type) -> Option<Collection> {
        let storage = Storage::Table {
            ctrl: self.offset(id, "table ctrl pointer")?,
            mask: self.offset(id, "table bucket_mask")?,
            items: self.offset(id, "table items")?,
        };
        self.values(ty.parameter("T")?, storage)
    }

    /// `futures_unordered/{mod,task}.rs`: a list of `Task { future, next_all, … }` from `head_all` on.
    fn futures_unordered(&self, id: TypeId) -> Option<Collection> {
        let head = self.route(id, "head_all")?;
        let task = self.route(head.end, "*")?.end;
        let future = self.route(task, "future")?;
        let (next, value) = (self.offset(task, "next_all")?, future.offset()?);
        if self.interest == Interest::Futures {
            self.program().ty(id)?.parameter("Fut").and_then(|of| self.future(of));
        }
        self.values(future.end, Storage::Lists { heads: [head].into(), next, value })
    }

    /// `util/idle_notified_set.rs`: what a `JoinSet` is made of.
    fn idle_notified_set(&self, id: TypeId) -> Option<Collection> {
        let head = |list: &str| self.route(id, &format!("lists * {list} head"));
        let heads = [head("notified")?, head("idle")?];
        let entry = self.route(heads[0].end, "*")?.end;
        let value = self.route(entry, "value")?;
        let (next, offset) = (self.offset(entry, "pointers next")?, value.offset()?);
        self.values(value.end, Storage::Lists { heads: heads.into(), next, value: offset })
    }

    /// futures-channel 0.3, `mpsc/queue.rs`: a list of `Node { next, value: Option<T> }` from the consumer's end on; the first
    /// node has no value any more.
    fn futures_queue(&self, id: TypeId) -> Option<Collection> {
        let head = self.route(id, "tail")?;
        let node = self.route(head.end, "*")?.end;
        let value = self.route(node, "value")?;
        let (next, offset) = (self.offset(node, "next")?, value.offset()?);
        self.values(value.end, Storage::Lists { heads: [head].into(), next, value: offset })
    }

    /// `collections/btree/node.rs`: the values of each node. Keys are not read: they seldom own anything.
    fn tree(&self, id: TypeId, ty: &Type) -> Option<Collection> {
        let root = self.route(id, "root node pointer")?;
        let node = self.route(root.end, "*")?.end;
        let parent = self.route(node, "parent *")?.end;
        let storage = Storage::Tree {
            height: self.route(id, "root height")?,
            root,
            values: self.offset(node, "vals")?,
            length: self.offset(node, "len")?,
            edges: self.offset(parent, "edges")?,
        };
        self.values(ty.parameter("V")?, storage)
    }

    /// `sync/mpsc/{chan,list,block}.rs`: the messages that were sent and not yet received, as a field of the channel.
    pub(super) fn messages(&self, id: TypeId, ty: &Type) -> Option<Field> {
        let head = self.route(id, "rx_fields list head pointer")?;
        let block = self.route(head.end, "*")?.end;
        let values = self.route(block, "values __0")?;
        let Shape::Array { count, .. } = self.program().ty(values.end)?.shape else { return None };
        let storage = Storage::Messages {
            head,
            first: self.route(id, "rx_fields list index")?,
            end: self.route(id, "tx tail_position")?,
            start: self.offset(block, "header start_index")?,
            ready: self.offset(block, "header ready_slots")?,
            next: self.offset(block, "header next")?,
            values: values.offset()?,
            slots: count,
        };
        let body = Body::Collection(self.values(ty.parameter("T")?, storage)?);
        let layout = self.layouts.add(Layout { body, ..Layout::new(id, 0) })?.id;
        Some(Field { label: self.layouts.labels.name("(queued)"), offset: 0, layout })
    }

    /// The body of a value that shares a future or stream with others: a `Shared`, or half of a stream.
    pub(super) fn shared_future(&self, id: TypeId, ty: &Type) -> Option<Body> {
        let way = match ty.path() {
            "futures_util::future::future::shared::Shared" => "inner * future_or_output",
            path => HALVES.iter().find(|(half, _)| *half == path).map(|(_, way)| *way)?,
        };
        let route = self.route(id, way)?;
        Some(Body::Shared { target: self.something(route.end)?.id, route })
    }

    /// `macros/select.rs`: a closure that has references to the bits `disabled` and to the tuple `futures`.
    pub(super) fn select(&self, id: TypeId, ty: &Type) -> Option<Select> {
        ty.member("_ref__disabled").and(ty.member("_ref__futures"))?;
        let disabled = self.route(id, "_ref__disabled *")?;
        let size = self.program().ty(disabled.end)?.size;
        let tuple = self.futures_of_select(id)?;
        let branch = |member: &Member| -> Option<(u32, u64, LayoutId)> {
            let number = member.name.strip_prefix("__")?.parse().ok()?;
            let layout = self.future(member.of).filter(|layout| !layout.is_nothing())?;
            Some((number, member.offset, layout.id))
        };
        let mut branches: Vec<_> = self.program().ty(tuple.end)?.members.iter().filter_map(branch).collect();
        branches.sort_by_key(|(number, ..)| *number);
        Some(Select { disabled, size, tuple, branches: branches.into() })
    }

    /// The route from the closure of a `tokio::select!` to the tuple of its futures; before the edition 2021, the
    /// closure has a reference to a reference to the tuple.
    pub(super) fn futures_of_select(&self, id: TypeId) -> Option<Route> {
        ["_ref__futures *", "_ref__futures * *"].iter().find_map(|way| {
            let tuple = self.route(id, way)?;
            self.program().ty(tuple.end)?.name.starts_with('(').then_some(tuple)
        })
    }
}
