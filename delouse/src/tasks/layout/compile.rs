//! Compiles types to layouts.

use std::cell::RefCell;
use std::sync::MutexGuard;

use rustc_hash::FxHashSet;

use super::labels::Label;
use super::model::{
    Body, Case, Content, Coroutine, Counted, Field, Interest, Layout, State, StateKind, Variants,
};
use super::store::Layouts;
use super::{handles, known_types};
use crate::debuginfo::types::{Member, Shape, Type, TypeId, Variant, names};
use crate::host::lock::lock;
use crate::tasks::leaves;
use crate::tasks::process::Program;
use crate::tasks::route::Route;

/// The deepest nesting of types that is compiled; real programs have less.
const MAX_NESTING: usize = 256;

/// Compiles types for one interest.
pub(super) struct Compiler<'l, 'i> {
    pub(super) layouts: &'l Layouts<'i>,
    pub(super) interest: Interest,
    /// Types that are being compiled, each inside the one before.
    open: RefCell<FxHashSet<TypeId>>,
    /// Those among them that contain themselves.
    recursive: RefCell<FxHashSet<TypeId>>,
    /// Types that this compiler has compiled, in that order.
    made: RefCell<Vec<TypeId>>,
    /// One compiler runs at a time.
    _lock: MutexGuard<'l, ()>,
}

impl<'i> Layouts<'i> {
    /// The layout of a type, compiled at the first request; `None` if there are too many types.
    pub(crate) fn of(&self, interest: Interest, id: TypeId) -> Option<&Layout> {
        self.known(interest, id).or_else(|| self.compiler(interest).layout(id))
    }

    pub(super) fn compiler(&self, interest: Interest) -> Compiler<'_, 'i> {
        let _lock = lock(&self.compiling);
        let (open, recursive, made) = (RefCell::default(), RefCell::default(), RefCell::default());
        Compiler { layouts: self, interest, open, recursive, made, _lock }
    }
}

impl<'l, 'i> Compiler<'l, 'i> {
    /// The layout of a type. A type that contains itself has none while it is being compiled.
    pub(super) fn layout(&self, id: TypeId) -> Option<&'l Layout> {
        if let Some(known) = self.layouts.known(self.interest, id) {
            return Some(known);
        }
        if self.open.borrow().len() >= MAX_NESTING || self.layouts.is_full(self.interest) {
            return None;
        }
        if !self.open.borrow_mut().insert(id) {
            self.recursive.borrow_mut().insert(id);
            return None;
        }
        let before = self.made.borrow().len();
        let layout = self.compile(id);
        self.open.borrow_mut().remove(&id);
        let is_recursive = self.recursive.borrow_mut().remove(&id);
        let layout = self.layouts.add(layout)?;
        if is_recursive && matches!(layout.body, Body::Counted(_)) {
            // What it leads to lacks the pointers back to it: it is compiled again when a walk comes to it.
            let inside = self.made.borrow_mut().split_off(before);
            self.layouts.forget(self.interest, &inside);
        }
        self.layouts.remember(self.interest, layout);
        self.made.borrow_mut().push(id);
        Some(layout)
    }

    /// The layout of a type that contains something of interest.
    pub(super) fn something(&self, id: TypeId) -> Option<&'l Layout> {
        self.layout(id).filter(|layout| !layout.is_nothing())
    }

    /// The layout of a future. If nothing is recognised in the future, its layout is [`Body::Opaque`].
    pub(super) fn future(&self, id: TypeId) -> Option<&'l Layout> {
        let layout = self.layout(id)?;
        if !layout.is_nothing() || self.is_ready_at_once(id) {
            return Some(layout);
        }
        let layout = self.layouts.unrecognised(layout)?;
        self.layouts.remember(self.interest, layout);
        Some(layout)
    }

    /// Whether there may be something of interest in a type. That is assumed of a type that is being compiled: it
    /// contains itself through a pointer, as a boxed recursion does.
    pub(super) fn leads_on(&self, id: TypeId) -> bool {
        self.layout(id).is_none_or(|layout| !layout.is_nothing())
    }

    pub(super) fn program(&self) -> &'l Program<'i> {
        &self.layouts.program
    }

    fn compile(&self, id: TypeId) -> Layout {
        let Some(ty) = self.program().ty(id) else { return Layout::new(id, 0) };
        let mut layout = Layout::new(id, ty.size);
        let alone = known_types::polled_alone(ty.path()).and_then(|field| ty.member(field));
        layout.alone = alone.and_then(|member| Some((member.offset, self.something(member.of)?.id)));
        match self.interest {
            Interest::Futures => self.compile_future(&ty, &mut layout),
            Interest::Handles => {
                layout.body = self.owner(id, &ty).unwrap_or(Body::Nothing);
                layout.completion = self.completion(id, &ty);
            }
        }
        layout
    }

    fn compile_future(&self, ty: &Type, layout: &mut Layout) {
        let (id, path) = (layout.of, ty.path());
        if let Some(leaf) = leaves::leaf(self.program(), id, path) {
            layout.frame = Some(names::ty(&ty.name).into());
            layout.body = Body::Leaf(Box::new(leaf));
            return;
        }
        if known_types::holds_no_future(path) {
            return;
        }
        let combinator = || self.combinator(id, ty);
        layout.body = combinator().or_else(|| self.members(ty)).unwrap_or(Body::Nothing);
        if let Body::Coroutine(_) = layout.body {
            // Only the name of a method requires its function.
            let body = path.contains("{impl#").then(|| self.program().types.body(id)).flatten();
            let linkage_name = body.as_ref().and_then(|body| body.linkage_name.as_deref());
            layout.frame = Some(names::coroutine(path, linkage_name).into());
        }
        layout.is_future = self.is_future(id, ty, &layout.body);
        if layout.is_future && layout.is_nothing() && !self.is_ready_at_once(id) {
            layout.body = Body::Opaque;
            layout.frame = Some(names::ty(&ty.name).into());
        } else if layout.frame.is_none() && !layout.is_nothing() && known_types::is_shown(path) {
            layout.frame = Some(names::ty(&ty.name).into());
        }
    }

    /// Whether a type is a future, or a pointer to one.
    fn is_future(&self, id: TypeId, ty: &Type, body: &Body) -> bool {
        let path = ty.path();
        match body {
            Body::Coroutine(_) | Body::Opaque => return true,
            Body::Dyn(of) => return of.is_polled_future(),
            Body::Pointer { target, .. } => return self.layout(*target).is_some_and(|of| of.is_future),
            Body::Fields(fields) if path == "core::pin::Pin" => {
                let pointer = fields.first().and_then(|field| self.layouts.get(field.layout));
                return pointer.is_some_and(|pointer| pointer.is_future);
            }
            _ => {}
        }
        known_types::is_join_branch(path)
            || known_types::is_std_future(path)
            || matches!(ty.shape, Shape::Struct | Shape::Variants(_))
                && path.contains("::")
                && !path.starts_with('(')
                && !known_types::may_be_no_future(path)
                && self.program().types.is_future(id, path)
    }

    /// The references among the members of a closure that lead to something of interest.
    fn references(&self, ty: &Type) -> Option<Body> {
        let field = |member: &Member| {
            let reference = self.program().ty(member.of)?;
            let Shape::Pointer(Some(target)) = reference.shape else { return None };
            let body = self.leads_on(target).then_some(Body::Pointer { target, owned: false })?;
            let layout = self.layouts.add(Layout { body, ..Layout::new(member.of, reference.size) })?.id;
            Some(Field { label: Label::NONE, offset: member.offset, layout })
        };
        let fields: Box<[Field]> = ty.members.iter().filter_map(field).collect();
        (!fields.is_empty()).then_some(Body::Fields(fields))
    }

    /// A pointer or a collection that leads to futures.
    fn combinator(&self, id: TypeId, ty: &Type) -> Option<Body> {
        let path = ty.path();
        if let Some(body) = self.collection(id, ty).flatten().map(Body::Collection) {
            return Some(body);
        }
        if let Some(body) = self.shared_future(id, ty).or_else(|| self.select(id, ty).map(Body::Select)) {
            return Some(body);
        }
        if let Some(of) = self.reusable_box(id, ty).or_else(|| self.dynamic(id, ty)) {
            return Some(Body::Dyn(of));
        }
        if known_types::polls_by_reference(path) {
            return self.references(ty);
        }
        if let Some(of) = branch_of_join(ty) {
            self.program().ty(of).and_then(|ty| self.future(ty.members.first()?.of));
        }
        None
    }

    /// The body of a type that may own handles.
    fn owner(&self, id: TypeId, ty: &Type) -> Option<Body> {
        let path = ty.path();
        if let Some(handle) = handles::handle(self.program(), id, path) {
            return Some(Body::Handle { handle, fields: self.fields(ty, 0) });
        }
        if let Some(way) = known_types::value_written_once(path) {
            let offset = Route::compile(self.program(), id, way)?.offset()?;
            let layout = self.something(ty.parameter("T")?)?.id;
            return Some(Body::Fields([Field { label: Label::NONE, offset, layout }].into()));
        }
        if known_types::holds_no_handle(path) {
            return None;
        }
        if let Some(weak) = known_types::counted(path) {
            return self.counted(id, weak).map(Body::Counted);
        }
        if let Some(way) = known_types::counted_value(path) {
            return self.counted_value(id, way).map(Body::Counted);
        }
        if let Some(collection) = self.collection(id, ty) {
            return collection.map(Body::Collection);
        }
        if let Some(of) = self.owned_dyn(ty) {
            return Some(Body::Dyn(of));
        }
        let messages = (path == "tokio::sync::mpsc::chan::Chan").then(|| self.messages(id, ty)).flatten();
        match (self.members(ty), messages) {
            (Some(Body::Fields(fields)), Some(messages)) => {
                let mut fields = fields.into_vec();
                fields.push(messages);
                Some(Body::Fields(fields.into()))
            }
            (None, Some(messages)) => Some(Body::Fields([messages].into())),
            (body, _) => body,
        }
    }

    /// The body of a struct, an enum, a coroutine, or an owning pointer.
    fn members(&self, ty: &Type) -> Option<Body> {
        match &ty.shape {
            Shape::Struct if is_wide(ty) => None,
            Shape::Struct => Some(self.fields(ty, 0)).filter(|fields| !fields.is_empty()).map(Body::Fields),
            Shape::Variants(variants) if variants.coroutine => {
                let at = variants.discriminant?;
                let states = variants.list.iter().filter_map(|variant| self.state(variant)).collect();
                let unresumed = variants.list.iter().find(|variant| variant.value == Some(0));
                let captures = unresumed.map(|variant| (variant.member.offset, variant.member.of));
                Some(Body::Coroutine(Coroutine { at, path: ty.path().into(), states, captures }))
            }
            Shape::Variants(variants) => {
                let is_branch =
                    self.interest == Interest::Handles && known_types::is_branch_of_join_all(ty.path());
                let case = |variant: &Variant| self.case(variant, is_branch);
                let cases: Box<[Case]> = variants.list.iter().map(case).collect();
                let any = is_branch || cases.iter().any(|case| !case.fields.is_empty());
                let discriminant = variants.discriminant;
                any.then_some(Body::Variants(Variants { discriminant, cases, is_branch }))
            }
            Shape::Pointer(Some(target)) if is_owned(&ty.name) && self.leads_on(*target) => {
                Some(Body::Pointer { target: *target, owned: !ty.name.starts_with("&mut ") })
            }
            Shape::Pointer(Some(target))
                if self.interest == Interest::Handles
                    && ty.name.starts_with('*')
                    && self.layouts.may_store_waker(*target) =>
            {
                Some(Body::Raw { target: *target })
            }
            _ => None,
        }
    }

    fn case(&self, variant: &Variant, is_branch: bool) -> Case {
        let fields = self.program().ty(variant.member.of).map(|of| self.fields(&of, variant.member.offset));
        Case {
            value: variant.value,
            is_over: known_types::is_over(&variant.member.name),
            pending: is_branch && variant.member.name == "Future",
            fields: fields.unwrap_or_default(),
        }
    }

    fn state(&self, variant: &Variant) -> Option<State> {
        let ty = self.program().ty(variant.member.of);
        Some(State {
            value: variant.value?,
            kind: match ty.as_ref().map(|ty| names::last_segment(&ty.name)) {
                None => StateKind::Unknown,
                Some("Unresumed") => StateKind::Unresumed,
                Some(name) if name.starts_with("Suspend") => StateKind::Suspended,
                Some(_) => StateKind::Over,
            },
            offset: variant.member.offset,
            variables: variant.member.of,
            written: variant.source.clone(),
            suspended: Default::default(),
            inside: Default::default(),
            owners: Default::default(),
        })
    }

    /// The members with something of interest. The names of members of the standard library and of glue are not shown.
    pub(super) fn fields(&self, ty: &Type, base: u64) -> Box<[Field]> {
        let named = self.interest == Interest::Handles && !known_types::has_private_names(ty.path());
        let label =
            |member: &Member| if named { self.layouts.labels.name(&member.name) } else { Label::NONE };
        ty.members.iter().filter_map(|member| self.field(member, base, || label(member))).collect()
    }

    pub(super) fn field(&self, member: &Member, base: u64, label: impl FnOnce() -> Label) -> Option<Field> {
        let layout = self.something(member.of)?.id;
        Some(Field { label: label(), offset: base.checked_add(member.offset)?, layout })
    }

    fn counted(&self, id: TypeId, weak: bool) -> Option<Counted> {
        let program = self.program();
        let route = Route::compile(program, id, "ptr pointer")?;
        let pointer = route.offset()?;
        let end = program.ty(route.end)?;
        let content = match end.shape {
            Shape::Pointer(target) => {
                let inner = program.ty(target?)?;
                let value = inner.member("data").or_else(|| inner.member("value"))?;
                Content::Value { of: value.of, offset: value.offset }
            }
            _ if end.member("vtable").is_some() => Content::Dyn,
            _ => {
                let slice = program.ty(program.ty(id)?.parameter("T")?)?;
                let Shape::Array { element, .. } = slice.shape else { return None };
                let of = program.ty(element)?;
                let offset = 16_u64.checked_next_multiple_of(of.align.max(1))?;
                Content::Slice { of: element, offset, stride: of.size }
            }
        };
        let is_channel = |of| program.ty(of).is_some_and(|ty| known_types::is_channel(ty.path()));
        let leads_on = match content {
            Content::Value { of, .. } => self.leads_on(of) || is_channel(of),
            Content::Slice { of, .. } => self.leads_on(of),
            Content::Dyn => true,
        };
        leads_on.then_some(Counted { weak, pointer, back: 0, content })
    }

    /// A pointer to the value of an `Arc`, as `Arc::into_raw` returns it, at the end of a route.
    fn counted_value(&self, id: TypeId, way: &str) -> Option<Counted> {
        let pointer = Route::compile(self.program(), id, way)?.offset()?;
        let of = Route::compile(self.program(), id, &format!("{way} *"))?.end;
        let offset = 16_u64.checked_next_multiple_of(self.program().ty(of)?.align.max(1))?;
        let content = Content::Value { of, offset };
        self.leads_on(of).then_some(Counted { weak: false, pointer, back: offset, content })
    }
}

/// Whether a type is a pointer whose target nothing else uses.
pub(in crate::tasks) fn is_owned(name: &str) -> bool {
    name.starts_with("alloc::boxed::Box<") || name.starts_with("&mut ")
}

/// Whether a type is a pointer with a vtable or a length.
fn is_wide(ty: &Type) -> bool {
    ty.members.len() == 2 && (ty.member("vtable").is_some() || ty.member("length").is_some())
}

/// The struct with the future of a branch of a `join!`, if `ty` is such a branch.
fn branch_of_join(ty: &Type) -> Option<TypeId> {
    let Shape::Variants(variants) = &ty.shape else { return None };
    let variants = variants.list.iter().filter(|_| known_types::is_join_branch(ty.path()));
    variants.map(|variant| &variant.member).find(|member| member.name == "Future").map(|member| member.of)
}
