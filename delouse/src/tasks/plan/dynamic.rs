//! What is behind a pointer with a vtable: a trait object is walked only if its trait can be polled.
//!
//! A trait can be polled if one of its functions is called `poll…` or takes a `&mut Context`: `Future`, `Stream`,
//! `AsyncRead`, `Body`, and any trait of the program's own that is like them. The names of traits say nothing: a
//! `TcpStreamHandler` is no stream, and a `Transport` may be a socket.

use std::rc::Rc;

use super::{Body, Plan, Plans, Step, Via, wrappers};
use crate::debuginfo::types::{Shape, Type, TypeId, names};
use crate::tasks::process::Process;
use crate::tasks::route::Route;
use crate::tasks::vtable::Methods;

/// How many types are looked at for what they may wait with.
const MAX_TYPES: usize = 400;

/// A pointer with a vtable.
#[derive(Debug)]
pub(in crate::tasks) struct Dyn {
    /// What is shown where its type is not known.
    opaque: Rc<Plan>,
    /// Its trait is `Future` or `Stream`, by its path.
    is_future: bool,
    /// It is `Arc`, `Rc` or `&`: others have it, too, so it may not be what is waited for.
    shared: bool,
    /// Of `Arc` and `Rc`: the value lies behind its counters.
    counted: bool,
    /// Where the pointer lies, and the vtable's address.
    pub(in crate::tasks) pointer: u64,
    pub(in crate::tasks) vtable: u64,
}

impl Dyn {
    /// A pointer to a boxed future at `offset`, as `ReusableBoxFuture` has it.
    pub(super) fn boxed_future(opaque: Plan, (pointer, vtable): (u64, u64)) -> Self {
        Self { opaque: Rc::new(opaque), is_future: true, shared: false, counted: false, pointer, vtable }
    }

    /// Whether it leads to a future or a stream, whatever that is.
    pub(super) fn is_future(&self) -> bool {
        self.is_future && !self.shared
    }

    /// Where the value lies, from where the pointer leads to: behind the counters of an `Arc`, at the alignment that its
    /// vtable says.
    pub(in crate::tasks) fn value(&self, process: &Process<'_, '_>, vtable: u64) -> Option<u64> {
        if !self.counted {
            return Some(0);
        }
        let align = process.memory.word(vtable.checked_add(16)?)?;
        16_u64.checked_next_multiple_of(align).filter(|_| align.is_power_of_two())
    }
}

impl Plans<'_, '_> {
    /// The step through the pointer with a vtable that a type is, where its trait may be one that can be polled.
    pub(super) fn dynamic(&self, id: TypeId, ty: &Type) -> Option<Dyn> {
        let counted = matches!(ty.path(), "alloc::sync::Arc" | "alloc::rc::Rc");
        let (at, wide) = if counted {
            let way = Route::compile(&self.program, id, "ptr pointer")?;
            (way.offset()?, self.program.ty(way.end)?)
        } else {
            (0, Rc::new(ty.clone()))
        };
        let pointer = at.checked_add(wide.member("data_ptr").or_else(|| wide.member("pointer"))?.offset)?;
        let vtable = at.checked_add(wide.member("vtable")?.offset)?;
        let name = ty.name.as_str();
        let of = principal(name)?;
        let is_reference = name.starts_with("&dyn ") || name.starts_with("&(dyn ");
        let is_owned = name.starts_with("alloc::boxed::Box<") || name.starts_with("&mut ");
        if !counted && !is_reference && !is_owned {
            return None;
        }
        let known = ["core::", "alloc::", "std::"].iter().any(|krate| of.starts_with(krate));
        let is_future = is_future_trait(of);
        let polls = is_future
            || !known
            || of.starts_with("core::ops::function::") && name.contains("core::task::wake::Context");
        polls.then(|| Dyn {
            opaque: Rc::new(self.opaque(id, name)),
            is_future,
            shared: counted || is_reference,
            counted,
            pointer,
            vtable,
        })
    }

    /// The plan for what the pointer with that vtable points to; `None` for what is not polled.
    pub(in crate::tasks) fn plan_of_vtable(
        &self,
        process: &Process<'_, '_>,
        vtable: u64,
        of: &Dyn,
    ) -> Option<Rc<Plan>> {
        let key = (vtable, of.shared, of.is_future);
        if let Some(known) = self.dyns.borrow().get(&key) {
            return known.clone();
        }
        let plan = self.make_plan_of_vtable(process, vtable, of);
        self.dyns.borrow_mut().insert(key, plan.clone());
        plan
    }

    fn make_plan_of_vtable(&self, process: &Process<'_, '_>, vtable: u64, of: &Dyn) -> Option<Rc<Plan>> {
        let methods = Methods::of(process, vtable);
        let is_polled = of.is_future || methods.can_be_polled(process);
        let plan = process.dyn_type(vtable).and_then(|id| self.plan(id)).filter(|_| is_polled);
        match plan {
            Some(plan) if !plan.is_nothing() => Some(plan),
            _ if !is_polled || of.shared => None,
            // What cannot wait at all, as a `Cursor`, is no wait that we do not know.
            Some(plan) if !of.is_future && (methods.is_service() || !self.may_wait(plan.of)) => None,
            Some(plan) => Some(self.unrecognised(&plan)),
            None => Some(of.opaque.clone()),
        }
    }

    /// Whether a future of that plan says that it is over, or not polled yet, by a state or variant with nothing inside.
    pub(in crate::tasks) fn tells_its_end(&self, plan: &Plan) -> bool {
        if let Some(behind) = self.pointed_to(plan) {
            return self.tells_its_end(&behind);
        }
        let by_hand = plan.is_future && matches!(plan.body, Body::Steps(_) | Body::Variants { .. });
        !by_hand
            || self.is_one_value(plan)
            || self.program.ty(plan.of).is_some_and(|ty| wrappers::tells_its_end(ty.path()))
    }

    /// The plan behind a pointer, pinned or not.
    fn pointed_to(&self, plan: &Plan) -> Option<Rc<Plan>> {
        let Body::Steps(steps) = &plan.body else { return None };
        match steps.as_ref() {
            [Step { via: Via::Pointer(target), .. }] => self.plan(*target),
            [Step { via: Via::Inline(value), .. }] => {
                let is_pin = self.program.ty(plan.of)?.path() == "core::pin::Pin";
                is_pin.then(|| value.clone())
            }
            _ => None,
        }
    }

    /// Whether a future is one value and nothing else, as a `Fuse` of an `Option`: where that is empty, there is nothing
    /// that could wait.
    fn is_one_value(&self, plan: &Plan) -> bool {
        let Body::Steps(steps) = &plan.body else { return false };
        let [Step { via: Via::Inline(value), .. }] = steps.as_ref() else { return false };
        let size = |of: TypeId| self.program.ty(of).map(|ty| ty.size);
        size(plan.of) == size(value.of)
    }

    /// A plan for something that is polled and in which nothing is recognised.
    pub(super) fn opaque(&self, of: TypeId, name: &str) -> Plan {
        Plan {
            id: self.next_id(),
            of,
            frame: Some(names::ty(name).into()),
            is_future: true,
            body: Body::Opaque,
        }
    }

    /// Whether a value of that type can have a waker, or can get at something that has it: by anything that it shares
    /// with others.
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

/// Whether a type is a way to what others have, too.
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

/// Whether the trait at `path` is `Future` or `Stream`: of the standard library, of futures, or of anybody's own.
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
