//! What is behind a pointer with a vtable: for futures, a trait object is walked only if its trait can be polled.
//!
//! A trait can be polled if one of its functions is called `poll…` or takes a `&mut Context`: `Future`, `Stream`,
//! `AsyncRead`, `Body`, and any trait of the program like these. The names of traits are not conclusive: a
//! `TcpStreamHandler` is no stream, and a `Transport` may be a socket.

use std::sync::Arc;

use super::compile::{Compiler, is_owned};
use super::known_types;
use super::model::{Body, Dyn, Interest, Layout};
use super::store::Layouts;
use crate::debuginfo::types::{Member, Shape, Type, TypeId, names};
use crate::host::lock::lock;
use crate::snapshot::Address;
use crate::tasks::process::Process;
use crate::tasks::route::Route;
use crate::tasks::vtable::Methods;

/// The most wrappers around a future that is ready.
const MAX_WRAPPERS: usize = 8;
/// How many types are searched for something that can wait.
const MAX_TYPES: usize = 400;

impl Dyn {
    /// Whether its target is a future or a stream that is polled through this pointer.
    pub(super) fn is_polled_future(&self) -> bool {
        self.is_future && !self.shared
    }

    /// Offset of the value from the target of the pointer: behind the counters of an `Arc`, at the alignment that its
    /// vtable has.
    pub(in crate::tasks) fn value(&self, process: &Process<'_, '_>, vtable: Address) -> Option<u64> {
        if !self.counted {
            return Some(0);
        }
        let align = process.memory.word(vtable.checked_add(16)?)?;
        16_u64.checked_next_multiple_of(align).filter(|_| align.is_power_of_two())
    }
}

impl Compiler<'_, '_> {
    /// The pointer with a vtable that a `ReusableBoxFuture` has.
    pub(super) fn reusable_box(&self, id: TypeId, ty: &Type) -> Option<Dyn> {
        if !ty.path().ends_with("::reusable_box::ReusableBoxFuture") {
            return None;
        }
        let at = |field: &str| Route::compile(self.program(), id, field)?.offset();
        let (pointer, vtable) = (at("data_ptr").or_else(|| at("pointer"))?, at("vtable")?);
        Some(Dyn { is_future: true, shared: false, counted: false, pointer, vtable })
    }

    /// Whether a future never waits for anything: it is ready, or only a wrapper around a ready future.
    pub(super) fn is_ready_at_once(&self, mut id: TypeId) -> bool {
        for _ in 0..MAX_WRAPPERS {
            let Some(ty) = self.program().ty(id) else { return false };
            if known_types::never_waits(ty.path()) {
                return true;
            }
            let member = match &ty.shape {
                Shape::Pointer(target) => *target,
                Shape::Struct => self.only_value(ty.members.iter()),
                // `Option`.
                Shape::Variants(variants) if !variants.coroutine => {
                    self.only_value(variants.list.iter().map(|variant| &variant.member))
                }
                _ => None,
            };
            let Some(of) = member else { return false };
            id = of;
        }
        false
    }

    /// The type of the one member that has members itself, or variants.
    fn only_value<'m>(&self, members: impl Iterator<Item = &'m Member>) -> Option<TypeId> {
        let has_value = |member: &&Member| match self.program().ty(member.of) {
            Some(ty) => !ty.members.is_empty() || !matches!(ty.shape, Shape::Struct),
            None => true,
        };
        let mut values = members.filter(has_value);
        let only = values.next()?.of;
        values.next().is_none().then_some(only)
    }

    /// The pointer with a vtable that owns its target, if `ty` is one, whatever its trait.
    pub(super) fn owned_dyn(&self, ty: &Type) -> Option<Dyn> {
        let is_dyn = matches!(ty.shape, Shape::Struct) && is_owned(&ty.name) && ty.name.contains("dyn ");
        ty.member("vtable").filter(|_| is_dyn && ty.members.len() == 2)?;
        let is_future = is_dyn_future(&ty.name);
        Some(Dyn { is_future, shared: false, counted: false, pointer: 0, vtable: 8 })
    }

    /// The pointer with a vtable that a type is, where its trait may be one that can be polled.
    pub(super) fn dynamic(&self, id: TypeId, ty: &Type) -> Option<Dyn> {
        let counted = matches!(ty.path(), "alloc::sync::Arc" | "alloc::rc::Rc");
        let route = counted.then(|| Route::compile(self.program(), id, "ptr pointer"));
        let inner = route.as_ref().and_then(|route| self.program().ty(route.as_ref()?.end));
        let (at, wide) = match &route {
            Some(route) => (route.as_ref()?.offset()?, inner.as_deref()?),
            None => (0, ty),
        };
        let pointer = at.checked_add(wide.member("data_ptr").or_else(|| wide.member("pointer"))?.offset)?;
        let vtable = at.checked_add(wide.member("vtable")?.offset)?;
        let name = ty.name.as_str();
        let of = principal(name)?;
        let is_reference = name.starts_with("&dyn ") || name.starts_with("&(dyn ");
        if !counted && !is_reference && !is_owned(name) {
            return None;
        }
        let known = ["core::", "alloc::", "std::"].iter().any(|krate| of.starts_with(krate));
        let is_future = is_future_trait(of);
        let polls = is_future
            || !known
            || of.starts_with("core::ops::function::") && name.contains("core::task::wake::Context");
        polls.then_some(Dyn { is_future, shared: counted || is_reference, counted, pointer, vtable })
    }
}

impl Layouts<'_> {
    /// The layout of what a pointer of that layout points to, by its vtable; `None` for a future that is not polled, and
    /// for a handle's owner whose type is not known.
    pub(crate) fn of_vtable(
        &self,
        process: &Process<'_, '_>,
        vtable: Address,
        pointer: &Layout,
    ) -> Option<&Layout> {
        let Body::Dyn(of) = &pointer.body else { return None };
        let key = (Interest::Futures, vtable, of.shared, of.is_future);
        let known = lock(&self.of_vtables).get(&key).copied();
        if let Some(known) = known {
            return self.get(known?);
        }
        let layout = self.future_of_vtable(process, vtable, pointer, of);
        lock(&self.of_vtables).insert(key, layout.map(|layout| layout.id));
        layout
    }

    fn future_of_vtable(
        &self,
        process: &Process<'_, '_>,
        vtable: Address,
        pointer: &Layout,
        of: &Dyn,
    ) -> Option<&Layout> {
        let methods = Methods::of(process, vtable);
        let is_polled = of.is_future || methods.can_be_polled(process);
        let id = process.dyn_type(vtable);
        let layout = id.and_then(|id| self.of(Interest::Futures, id)).filter(|_| is_polled);
        match layout {
            Some(layout) if !layout.is_nothing() => Some(layout),
            _ if !is_polled || of.shared => None,
            // A type that cannot wait at all, such as a `Cursor`, is not an unknown wait.
            Some(layout) if !of.is_future && (methods.is_service() || !self.may_wait(layout.of)) => None,
            Some(layout) => self.unrecognised(layout),
            None => self.unrecognised(pointer),
        }
    }

    /// The layout of the value behind a pointer with that vtable which owns it.
    pub(crate) fn owned_by_vtable(&self, process: &Process<'_, '_>, vtable: Address) -> Option<&Layout> {
        let key = (Interest::Handles, vtable, false, false);
        let known = lock(&self.of_vtables).get(&key).copied();
        if let Some(known) = known {
            return self.get(known?);
        }
        let layout = process.dyn_type(vtable).and_then(|id| self.of(Interest::Handles, id));
        lock(&self.of_vtables).insert(key, layout.map(|layout| layout.id));
        layout
    }

    /// The layout of a future of the same type in which nothing was recognised.
    pub(crate) fn unrecognised(&self, layout: &Layout) -> Option<&Layout> {
        let name = || self.pointee(layout.of).map(|ty| names::ty(&ty.name)).unwrap_or_default();
        self.unrecognised_as(layout, name)
    }

    /// The type that a pointer leads to, or the type itself.
    fn pointee(&self, mut of: TypeId) -> Option<Arc<Type>> {
        for _ in 0..8 {
            let ty = self.program.ty(of)?;
            of = match &ty.shape {
                Shape::Pointer(Some(target)) => *target,
                Shape::Struct if ty.path() == "core::pin::Pin" => ty.members.first()?.of,
                _ => return Some(ty),
            };
        }
        self.program.ty(of)
    }

    /// Whether a future shows by a state or an empty variant that it has completed or was not polled yet.
    pub(in crate::tasks) fn shows_completion(&self, layout: &Layout) -> bool {
        if let Some(target) = self.target(layout) {
            return self.shows_completion(target);
        }
        let by_hand = layout.is_future
            && !matches!(layout.body, Body::Nothing | Body::Coroutine(_) | Body::Leaf(_) | Body::Opaque);
        !by_hand
            || self.is_one_value(layout)
            || self.program.ty(layout.of).is_some_and(|ty| known_types::shows_completion(ty.path()))
    }

    /// The layout behind a pointer, pinned or not.
    fn target(&self, layout: &Layout) -> Option<&Layout> {
        match &layout.body {
            Body::Pointer { target, .. } => self.of(Interest::Futures, *target),
            Body::Fields(fields) if self.program.ty(layout.of)?.path() == "core::pin::Pin" => {
                self.get(fields.first()?.layout)
            }
            _ => None,
        }
    }

    /// Whether a future consists of one value, as a `Fuse` of an `Option`: if the value is empty, nothing in the future
    /// can wait.
    fn is_one_value(&self, layout: &Layout) -> bool {
        let Body::Fields(fields) = &layout.body else { return false };
        let [field] = fields.as_ref() else { return false };
        self.get(field.layout).is_some_and(|value| value.size == layout.size)
    }

    /// Whether a value of that type can store a waker, or refer to something that does, which it shares with others.
    fn may_wait(&self, id: TypeId) -> bool {
        let mut seen = vec![id];
        let mut next = 0;
        while let Some(of) = seen.get(next).copied() {
            next += 1;
            let Some(ty) = self.program.ty(of) else { return true };
            if seen.len() > MAX_TYPES || shares(&ty) {
                return true;
            }
            let inside = match &ty.shape {
                Shape::Pointer(target) => *target,
                Shape::Array { element, .. } => Some(*element),
                _ => None,
            };
            let variants = match &ty.shape {
                Shape::Variants(variants) => variants.list.as_slice(),
                _ => &[],
            };
            let members = ty.members.iter().chain(variants.iter().map(|variant| &variant.member));
            let parameters =
                ty.parameters.iter().map(|(_, of)| *of).filter(|_| ty.path().starts_with("alloc::"));
            for of in members.map(|member| member.of).chain(inside).chain(parameters) {
                if !seen.contains(&of) {
                    seen.push(of);
                }
            }
        }
        false
    }
}

/// Whether a value of that type may refer to what others refer to, too.
fn shares(ty: &Type) -> bool {
    const SHARED: &[&str] =
        &["alloc::sync::Arc", "alloc::sync::Weak", "alloc::rc::Rc", "alloc::rc::Weak", "core::task::wake::"];
    let path = ty.path();
    SHARED.iter().any(|shared| path.starts_with(shared))
        || ty.member("vtable").is_some()
        || matches!(ty.shape, Shape::Pointer(Some(_))) && ty.name.starts_with('&')
}

/// The path of the trait that the pointer with that type's name has a vtable of: the first one that is named.
fn principal(name: &str) -> Option<&str> {
    let (_, of) = name.split_once("dyn ")?;
    let end = of.find(['<', '>', ' ', ',', ')']).unwrap_or(of.len());
    of.get(..end)
}

/// Whether the trait at `path` is `Future` or `Stream`: of the standard library, of futures, or of any other crate.
fn is_future_trait(path: &str) -> bool {
    const NAMES: &[&str] = &[
        "Future",
        "FusedFuture",
        "TryFuture",
        "LocalFuture",
        "Stream",
        "FusedStream",
        "TryStream",
        "AsyncIterator",
    ];
    NAMES.contains(&names::last_segment(path))
}

/// Whether the pointer with that type's name leads to a future or a stream.
pub(crate) fn is_dyn_future(name: &str) -> bool {
    principal(name).is_some_and(is_future_trait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits_by_the_names_of_pointers() {
        for (name, of, future) in [
            (
                "alloc::boxed::Box<dyn app::TcpStreamHandler, alloc::alloc::Global>",
                "app::TcpStreamHandler",
                false,
            ),
            ("&mut dyn tokio::io::async_read::AsyncRead", "tokio::io::async_read::AsyncRead", false),
            ("alloc::boxed::Box<dyn app::FutureCache<u8>>", "app::FutureCache", false),
            (
                "alloc::boxed::Box<(dyn core::future::future::Future<Output=()> + core::marker::Send), alloc::alloc::Global>",
                "core::future::future::Future",
                true,
            ),
            ("&mut dyn futures_core::stream::Stream<Item=u8>", "futures_core::stream::Stream", true),
        ] {
            assert_eq!((principal(name), is_dyn_future(name)), (Some(of), future), "{name}");
        }
        assert!(!is_dyn_future("alloc::boxed::Box<core::future::Future>"));
    }
}
