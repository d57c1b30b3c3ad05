//! How to walk what a type owns: each type is compiled once, types that can own nothing of interest to
//! nothing.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::collections::Many;
use super::ends::Ends;
use super::labels::{Label, Labels};
use super::variables::Variables;
use crate::debuginfo::types::{Discriminant, Member, Shape, Type, TypeId, Variant, names};
use crate::tasks::is_dyn_future;
use crate::tasks::process::Process;
use crate::tasks::route::Route;
use crate::waits::handles::{self, Handle, Roles};

/// Types inside types; more than that is no program's.
const MAX_NESTING: usize = 256;
/// Types of guards that unknown variables may have.
const MAX_GUARDS: usize = 64;
/// More types than that are no answer's worth.
const MAX_TYPES: u32 = 100_000;

/// Types that own no handle of ours, or so much that everything would be reached.
const OPAQUE: &[&str] = &[
    "core::mem::maybe_uninit::MaybeUninit",
    "core::task::wake::",
    "core::marker::PhantomData",
    "std::thread::",
    "std::backtrace",
    "tokio::runtime::",
    "tokio::task::local::",
    "tokio::util::linked_list::",
    "tracing::dispatcher::",
    "tracing::span::",
    "tracing_core::",
    "tracing_subscriber::",
];

/// Values that are written once, and the way to them. Before they are written, there are zeros in a static.
const ONCE: &[(&str, &str)] = &[
    ("std::sync::once_lock::OnceLock", "value value"),
    ("std::sync::lazy_lock::LazyLock", "data value"),
    ("tokio::sync::once_cell::OnceCell", "value value"),
];

/// What channels keep behind their `Arc`: counted even where no message of it owns anything.
const CHANNELS: &[&str] = &[
    "async_channel::Channel",
    "futures_channel::mpsc::BoundedInner",
    "futures_channel::mpsc::UnboundedInner",
    "futures_channel::oneshot::Inner",
    "tokio::sync::broadcast::Shared",
    "tokio::sync::mpsc::chan::Chan",
    "tokio::sync::oneshot::Inner",
    "tokio::sync::watch::Shared",
];

/// The source of tokio's `join!`, where its `.await` stands.
const JOIN: &str = "src/macros/join.rs";

/// Wrappers of futures that lie among those: what tokio's task dump puts around every task, for one.
const OPEN: &[&str] = &["tokio::runtime::task::trace::", "tokio::task::local::RunUntil"];

/// A compiled type.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its number.
    pub(super) id: u32,
    pub(super) of: TypeId,
    pub(super) size: u64,
    pub(super) ends: Ends,
    pub(super) body: Body,
}

/// What there is inside.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing of interest.
    Nothing,
    /// All of these, in any case.
    Fields(Box<[Field]>),
    /// One case of an enum.
    Variants { at: Option<Discriminant>, cases: Box<[Case]>, is_branch: bool },
    /// An `async` function, block or closure.
    Coroutine(Coroutine),
    /// A thin pointer to something that nobody else uses: `Box`, which owns it, and `&mut`.
    Pointer { target: TypeId, owned: bool },
    /// The same with a vtable; of a future or a stream, or of anything else.
    Dyn { future: bool },
    /// `Arc`, `Rc`, and their weak forms.
    Shared(Shared),
    /// Several of one type.
    Many(Many),
    /// A handle, with what it is made of.
    Handle { handle: Handle, fields: Box<[Field]> },
}

/// Something at an offset.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) label: Label,
    pub(super) offset: u64,
    pub(super) plan: Rc<Plan>,
}

/// Branches of a `join!`: the future, or what it came to (tokio 1.40 to 1.54, futures 0.3). tokio's are those of
/// `try_join!`, too, which is over when one branch fails.
const BRANCHES: &[&str] =
    &["tokio::future::maybe_done::MaybeDone", "futures_util::future::maybe_done::MaybeDone"];

/// A variant of an enum.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) value: Option<u64>,
    /// Of a branch: it has not ended.
    pub(super) pending: bool,
    pub(super) fields: Box<[Field]>,
}

/// An `async` function's states.
#[derive(Debug)]
pub(super) struct Coroutine {
    pub(super) at: Discriminant,
    pub(super) states: Box<[State]>,
    /// An `async fn` moves its arguments into variables when it is first polled: what is left of them is listed in every
    /// state, and is not alive (rustc 1.88 to 1.95).
    pub(super) of_function: bool,
    /// Offset and type of the struct of what it has captured: its variables before it is first polled.
    pub(super) captures: Option<(u64, TypeId)>,
}

/// One state of a coroutine.
#[derive(Debug)]
pub(super) struct State {
    pub(super) value: u64,
    pub(super) kind: StateKind,
    /// It is at the `.await` of a `tokio::join!`.
    pub(super) joins: bool,
    pub(super) offset: u64,
    pub(super) variables: TypeId,
    pub(super) inside: OnceCell<Variables>,
}

/// What a state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateKind {
    /// Never polled: it has its captures.
    Unresumed,
    /// At an `.await`.
    Suspended,
    /// Nothing is left.
    Over,
}

/// A counted pointer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) weak: bool,
    /// Offset of the pointer.
    pub(super) pointer: u64,
    pub(super) content: Content,
}

/// What the counters stand in front of: `ArcInner { strong, weak, data }`, two words first.
#[derive(Debug)]
pub(super) enum Content {
    /// A value at that offset from the counters.
    Value { of: TypeId, offset: u64 },
    /// A value whose vtable stands behind the pointer.
    Dyn,
    /// As many as the word behind the pointer says.
    Slice { of: TypeId, offset: u64, stride: u64 },
}

/// All plans of one capture.
pub(in crate::waits) struct Plans<'a, 'p, 'i> {
    pub(super) process: &'a Process<'p, 'i>,
    pub(super) labels: RefCell<Labels>,
    /// `None` while a type is being compiled.
    known: RefCell<FxHashMap<TypeId, Option<Rc<Plan>>>>,
    dyns: RefCell<FxHashMap<u64, Option<Rc<Plan>>>>,
    next: Cell<u32>,
    depth: Cell<usize>,
}

impl<'a, 'p, 'i> Plans<'a, 'p, 'i> {
    pub(in crate::waits) fn new(process: &'a Process<'p, 'i>) -> Self {
        Self {
            process,
            labels: RefCell::default(),
            known: RefCell::default(),
            dyns: RefCell::default(),
            next: Cell::default(),
            depth: Cell::default(),
        }
    }

    /// The plan for a type. While it is being compiled, a type that contains itself has none.
    pub(super) fn plan(&self, id: TypeId) -> Option<Rc<Plan>> {
        if let Some(known) = self.known.borrow().get(&id) {
            return known.clone();
        }
        if self.depth.get() >= MAX_NESTING || self.next.get() >= MAX_TYPES {
            return None;
        }
        self.known.borrow_mut().insert(id, None);
        self.depth.set(self.depth.get() + 1);
        let number = self.number();
        let size = self.process.ty(id).map_or(0, |ty| ty.size);
        let body = self.compile(id).unwrap_or(Body::Nothing);
        let plan = Rc::new(Plan { id: number, of: id, size, ends: self.ends(id), body });
        self.depth.set(self.depth.get() - 1);
        self.known.borrow_mut().insert(id, Some(plan.clone()));
        Some(plan)
    }

    /// The plan for what the `dyn` pointer with that vtable points to.
    pub(super) fn plan_of_vtable(&self, vtable: u64) -> Option<Rc<Plan>> {
        if let Some(known) = self.dyns.borrow().get(&vtable) {
            return known.clone();
        }
        let plan = self.process.dyn_type(vtable).and_then(|id| self.plan(id));
        self.dyns.borrow_mut().insert(vtable, plan.clone());
        plan
    }

    /// The guards of locks among the types that were compiled.
    pub(super) fn guards(&self) -> Vec<Rc<Plan>> {
        let is_guard = |plan: &&Rc<Plan>| match &plan.body {
            Body::Handle { handle, .. } => handles::at(handle.index())
                .is_some_and(|fact| fact.roles.has(Roles::GUARD.or(Roles::THREAD_GUARD))),
            _ => false,
        };
        self.known.borrow().values().flatten().filter(is_guard).take(MAX_GUARDS).cloned().collect()
    }

    /// Whether something of that type may own something of interest. A type that is being compiled right
    /// now contains itself.
    pub(super) fn leads_on(&self, id: TypeId) -> bool {
        self.plan(id).is_none_or(|plan| !plan.is_nothing())
    }

    fn compile(&self, id: TypeId) -> Option<Body> {
        let ty = self.process.ty(id)?;
        let path = ty.path();
        if let Some(handle) = handles::handle(self.process, id, path) {
            return Some(Body::Handle { handle, fields: self.fields(&ty, 0) });
        }
        if let Some((_, way)) = ONCE.iter().find(|(known, _)| *known == path) {
            let offset = Route::compile(self.process, id, way)?.offset()?;
            let plan = self.plan(ty.parameter("T")?).filter(|plan| !plan.is_nothing())?;
            return Some(Body::Fields([Field { label: Label::NONE, offset, plan }].into()));
        }
        let is_in = |list: &[&str]| list.iter().any(|prefix| path.starts_with(prefix));
        if is_in(OPAQUE) && !is_in(OPEN) {
            return None;
        }
        if let Some(weak) = counted(path) {
            return self.shared(id, weak).map(Body::Shared);
        }
        if let Some(many) = self.collection(id, &ty) {
            return many.map(Body::Many);
        }
        match &ty.shape {
            Shape::Struct if is_wide(&ty) => {
                let future = is_dyn_future(&ty.name);
                (is_owned(&ty.name) && ty.name.contains("dyn ")).then_some(Body::Dyn { future })
            }
            Shape::Struct => {
                let mut fields = self.fields(&ty, 0).into_vec();
                if path == "tokio::sync::mpsc::chan::Chan" {
                    fields.extend(self.messages(id, &ty).map(|many| self.queued(id, many)));
                }
                some(fields.into()).map(Body::Fields)
            }
            Shape::Variants(variants) if variants.coroutine => {
                self.coroutine(&ty, variants.discriminant?, &variants.list).map(Body::Coroutine)
            }
            Shape::Variants(variants) => {
                let is_branch = BRANCHES.contains(&path);
                let case = |variant: &Variant| Case {
                    value: variant.value,
                    pending: is_branch && variant.member.name == "Future",
                    fields: self
                        .process
                        .ty(variant.member.of)
                        .map(|of| self.fields(&of, variant.member.offset))
                        .unwrap_or_default(),
                };
                let cases: Box<[Case]> = variants.list.iter().map(case).collect();
                let any = is_branch || cases.iter().any(|case| !case.fields.is_empty());
                any.then_some(Body::Variants { at: variants.discriminant, cases, is_branch })
            }
            Shape::Pointer(Some(target)) => {
                let owned = !ty.name.starts_with("&mut ");
                (is_owned(&ty.name) && self.leads_on(*target))
                    .then_some(Body::Pointer { target: *target, owned })
            }
            Shape::Pointer(None) | Shape::Array { .. } | Shape::Scalar => None,
        }
    }

    /// The members that may own something. Names of the standard library's own members say nothing to
    /// anybody.
    fn fields(&self, ty: &Type, base: u64) -> Box<[Field]> {
        let path = ty.path();
        let glue = [
            "core::",
            "alloc::",
            "std::",
            "hashbrown::",
            "tokio::",
            "futures_",
            "lock_api::",
            "(",
            "parking_lot::",
        ]
        .iter()
        .any(|prefix| path.starts_with(prefix));
        let field = |member: &Member| {
            let label = |name: &str| self.labels.borrow_mut().name(name);
            self.field(member, base, if glue { Label::NONE } else { label(&member.name) })
        };
        ty.members.iter().filter_map(field).collect()
    }

    /// The messages of a channel, as a field of it.
    fn queued(&self, of: TypeId, many: Many) -> Field {
        let label = self.labels.borrow_mut().name("(queued)");
        let plan =
            Rc::new(Plan { id: self.number(), of, size: 0, ends: Ends::Unknown, body: Body::Many(many) });
        Field { label, offset: 0, plan }
    }

    fn number(&self) -> u32 {
        let number = self.next.get();
        self.next.set(number.saturating_add(1));
        number
    }

    pub(super) fn field(&self, member: &Member, base: u64, label: Label) -> Option<Field> {
        let plan = self.plan(member.of).filter(|plan| !plan.is_nothing())?;
        Some(Field { label, offset: base.checked_add(member.offset)?, plan })
    }

    fn shared(&self, id: TypeId, weak: bool) -> Option<Shared> {
        let route = Route::compile(self.process, id, "ptr pointer")?;
        let pointer = route.offset()?;
        let end = self.process.ty(route.end)?;
        let content = match end.shape {
            Shape::Pointer(target) => {
                let inner = self.process.ty(target?)?;
                let value = inner.member("data").or_else(|| inner.member("value"))?;
                Content::Value { of: value.of, offset: value.offset }
            }
            _ if end.member("vtable").is_some() => Content::Dyn,
            _ => {
                let parameter = self.process.ty(id)?.parameter("T")?;
                let slice = self.process.ty(parameter)?;
                let Shape::Array { element, .. } = slice.shape else { return None };
                let of = self.process.ty(element)?;
                let offset = 16_u64.checked_next_multiple_of(of.align.max(1))?;
                Content::Slice { of: element, offset, stride: of.size }
            }
        };
        let leads_on = match content {
            Content::Value { of, .. } => self.leads_on(of) || self.is_channel(of),
            Content::Slice { of, .. } => self.leads_on(of),
            Content::Dyn => true,
        };
        leads_on.then_some(Shared { weak, pointer, content })
    }

    fn is_channel(&self, of: TypeId) -> bool {
        self.process.ty(of).is_some_and(|ty| CHANNELS.contains(&ty.path()))
    }

    fn coroutine(&self, ty: &Type, at: Discriminant, variants: &[Variant]) -> Option<Coroutine> {
        let of_function = names::last_segment(ty.path()).starts_with("{async_fn_env#");
        let unresumed = variants.iter().find(|variant| variant.value == Some(0));
        let state = |variant: &Variant| {
            let value = variant.value?;
            let name = self.process.ty(variant.member.of)?.name.clone();
            Some(State {
                value,
                kind: match names::last_segment(&name) {
                    "Unresumed" => StateKind::Unresumed,
                    name if name.starts_with("Suspend") => StateKind::Suspended,
                    _ => StateKind::Over,
                },
                joins: variant.source.as_ref().is_some_and(|source| source.file.ends_with(JOIN)),
                offset: variant.member.offset,
                variables: variant.member.of,
                inside: OnceCell::new(),
            })
        };
        Some(Coroutine {
            at,
            states: variants.iter().filter_map(state).collect(),
            of_function,
            captures: unresumed.map(|variant| (variant.member.offset, variant.member.of)),
        })
    }
}

impl Plan {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.body, Body::Nothing)
    }
}

fn some(fields: Box<[Field]>) -> Option<Box<[Field]>> {
    (!fields.is_empty()).then_some(fields)
}

/// `Some(weak)` for a counted pointer.
fn counted(path: &str) -> Option<bool> {
    match path {
        "alloc::sync::Arc" | "alloc::rc::Rc" => Some(false),
        "alloc::sync::Weak" | "alloc::rc::Weak" => Some(true),
        _ => None,
    }
}

/// A pointer whose target nobody else uses.
fn is_owned(name: &str) -> bool {
    name.starts_with("alloc::boxed::Box<") || name.starts_with("&mut ")
}

/// A pointer with a vtable or a length.
fn is_wide(ty: &Type) -> bool {
    ty.members.len() == 2 && (ty.member("vtable").is_some() || ty.member("length").is_some())
}
