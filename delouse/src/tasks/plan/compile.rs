//! From a type to its plan.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::wrappers;
use super::{Body, Case, Coroutine, Owner, Plan, Plans, State, Step, Suspended, Via};
use crate::debuginfo::types::{Member, Shape, Source, Type, TypeId, Variant, Variants, names};
use crate::tasks::route::Route;
use crate::tasks::{Origin, leaves};

impl Plans<'_, '_> {
    pub(super) fn compile(&self, id: TypeId) -> Plan {
        let mut plan =
            Plan { id: self.next_id(), of: id, frame: None, is_future: false, body: Body::Nothing };
        let Some(ty) = self.program.ty(id) else { return plan };
        let path = ty.path();
        if let Some(leaf) = leaves::leaf(&self.program, id, path) {
            plan.frame = Some(names::ty(&ty.name).into());
            plan.body = Body::Leaf(leaf);
            return plan;
        }
        if wrappers::is_opaque(path) {
            return plan;
        }
        plan.body = match &ty.shape {
            Shape::Variants(variants) if variants.coroutine => {
                self.coroutine(id, &ty, variants, &mut plan.frame)
            }
            _ => self.combinator(id, &ty),
        };
        plan.is_future = self.is_future(id, &ty, &plan.body);
        if plan.is_future && plan.is_nothing() {
            return self.opaque(id, &ty.name);
        }
        if plan.frame.is_none() && !plan.is_nothing() && wrappers::is_shown(path) {
            plan.frame = Some(names::ty(&ty.name).into());
        }
        plan
    }

    /// Whether a type is a future, or a pointer to one.
    fn is_future(&self, id: TypeId, ty: &Type, body: &Body) -> bool {
        let path = ty.path();
        let of = |plan: Option<Rc<Plan>>| plan.is_some_and(|plan| plan.is_future);
        match body {
            Body::Coroutine(_) | Body::Opaque => return true,
            Body::Steps(steps) => match steps.as_ref() {
                [Step { via: Via::Dyn(of), .. }] => return of.is_future(),
                [Step { via: Via::Pointer(target), .. }] => return of(self.plan(*target)),
                [Step { via: Via::Inline(plan), .. }] if path == "core::pin::Pin" => return plan.is_future,
                _ => {}
            },
            Body::Nothing | Body::Variants { .. } | Body::Leaf(_) => {}
        }
        wrappers::is_join_branch(path)
            || wrappers::is_std_future(path)
            || matches!(ty.shape, Shape::Struct | Shape::Variants(_))
                && path.contains("::")
                && !wrappers::may_be_no_future(path)
                && self.program.types.is_future(id, path)
    }

    /// Anything that is no coroutine and no leaf: whatever in it may be a future.
    fn combinator(&self, id: TypeId, ty: &Type) -> Body {
        if let Some(container) = self.container(id, ty) {
            return one_step(Via::Container(Rc::new(container)));
        }
        if let Some(of) = self.reusable_box(id, ty).or_else(|| self.dynamic(id, ty)) {
            return one_step(Via::Dyn(Rc::new(of)));
        }
        if let Some(of) = branch_of_join(ty) {
            self.program.ty(of).and_then(|ty| self.future(ty.members.first()?.of));
        }
        match &ty.shape {
            Shape::Struct if is_wide(ty) => Body::Nothing,
            Shape::Struct => steps_or_nothing(self.steps(&ty.members)),
            Shape::Variants(variants) => self.variants(variants),
            Shape::Pointer(Some(target)) if is_owned(&ty.name) && self.leads_on(*target) => {
                one_step(Via::Pointer(*target))
            }
            _ => Body::Nothing,
        }
    }

    fn variants(&self, variants: &Variants) -> Body {
        let case = |variant: &Variant| Case {
            value: variant.value,
            is_over: wrappers::is_over(&variant.member.name),
            steps: self.inside(&variant.member),
        };
        let cases: Box<[Case]> = variants.list.iter().map(case).collect();
        if cases.iter().all(|case| case.steps.is_empty()) {
            return Body::Nothing;
        }
        Body::Variants { at: variants.discriminant, cases }
    }

    fn steps(&self, members: &[Member]) -> Box<[Step]> {
        let step = |member: &Member| {
            let plan = self.plan(member.of).filter(|plan| !plan.is_nothing())?;
            let is_branch = plan.is_future;
            Some(Step { offset: member.offset, is_branch, via: Via::Inline(plan) })
        };
        let mut steps: Box<[Step]> = members.iter().filter_map(step).collect();
        if let [only] = steps.as_mut() {
            only.is_branch = false;
        }
        steps
    }

    /// The steps into a member's own members: into the struct that a variant's fields are in.
    fn inside(&self, member: &Member) -> Box<[Step]> {
        let mut steps = self.program.ty(member.of).map(|ty| self.steps(&ty.members)).unwrap_or_default();
        for step in &mut steps {
            step.offset = step.offset.saturating_add(member.offset);
        }
        steps
    }

    /// Whether a pointer's target may contain a future. A type that is being compiled right now contains
    /// itself through this pointer, as a boxed recursion does.
    fn leads_on(&self, target: TypeId) -> bool {
        self.plan(target).is_none_or(|plan| !plan.is_nothing())
    }

    fn coroutine(&self, id: TypeId, ty: &Type, variants: &Variants, frame: &mut Option<Rc<str>>) -> Body {
        let Some(at) = variants.discriminant else { return Body::Nothing };
        let path = ty.path();
        // Only a method needs its function for its name.
        let linkage_name = path.contains("{impl#").then(|| self.program.types.body(id)).flatten();
        let linkage_name = linkage_name.as_ref().and_then(|body| body.linkage_name.as_deref());
        *frame = Some(names::coroutine(path, linkage_name).into());
        let state = |variant: &Variant| {
            Some(State {
                value: variant.value?,
                offset: variant.member.offset,
                variables: variant.member.of,
                written: variant.source.clone(),
                suspended: self
                    .program
                    .ty(variant.member.of)
                    .is_some_and(|ty| names::last_segment(&ty.name).starts_with("Suspend")),
                details: OnceCell::new(),
                owners: RefCell::default(),
            })
        };
        let states = variants.list.iter().filter_map(state).collect();
        Body::Coroutine(Coroutine { at, path: path.into(), states })
    }

    /// What a state waits for, compiled at the first task in that state.
    pub(in crate::tasks) fn suspended<'s>(
        &self,
        id: TypeId,
        coroutine: &'s Coroutine,
        state: &'s State,
    ) -> &'s Suspended {
        state.details.get_or_init(|| {
            let variables = self.program.ty(state.variables);
            let awaitee =
                variables.as_ref().filter(|_| state.suspended).and_then(|ty| ty.member("__awaitee"));
            let Some(awaitee) = awaitee else {
                let (source, at_declaration) = self.line(id, coroutine, state);
                return Suspended { source, at_declaration, steps: Box::new([]), awaitee: None };
            };
            let name = self.program.ty(awaitee.of).map(|ty| ty.name.clone()).unwrap_or_default();
            let mut steps = self.steps(std::slice::from_ref(awaitee));
            for step in &mut steps {
                step.offset = step.offset.saturating_add(state.offset);
            }
            let (source, at_declaration) = self.line(id, coroutine, state);
            Suspended { source, at_declaration, steps, awaitee: Some(names::ty(&name).into()) }
        })
    }

    /// The line of a state; `true` where it is the line that the function is declared at.
    ///
    /// The type has the line of a macro where the `.await` is in one. A macro of the program itself is in its source;
    /// for one of a library, the line of its call is wanted.
    fn line(&self, id: TypeId, coroutine: &Coroutine, state: &State) -> (Option<Source>, bool) {
        let written = state.written.as_ref();
        let head =
            coroutine.states.iter().find(|state| state.value == 0).and_then(|head| head.written.as_ref());
        let own = self.program.types.is_own(&coroutine.path);
        let is_own = |source: &Source| Origin::of_file(&source.file) == Origin::User;
        let fits =
            |source: &Source| head.is_none_or(|head| head.file == source.file) && (!own || is_own(source));
        if written.is_none_or(fits) {
            return (written.cloned(), false);
        }
        let site =
            self.program.types.suspension(id, state.value).and_then(|suspension| suspension.site.clone());
        if let Some(site) = site.filter(|site| fits(site) || is_own(site)) {
            return (Some(site), false);
        }
        match written.filter(|source| is_own(source)) {
            Some(written) => (Some(written.clone()), false),
            None => (head.filter(|head| !own || is_own(head)).cloned(), true),
        }
    }

    /// The way from a coroutine's state to something of the type at `path`, which one of its variables is,
    /// has or points to; and from there to the whole that it is part of.
    pub(in crate::tasks) fn owner(&self, state: &State, of: leaves::Owner) -> Option<Rc<Owner>> {
        let path = of.path;
        if let Some((_, known)) = state.owners.borrow().iter().find(|(known, _)| *known == path) {
            return known.clone();
        }
        let route = self.route_to(state, path);
        let owner = route.map(|route| {
            let whole = Route::compile(&self.program, route.end, of.whole);
            let whole = whole.and_then(|whole| Some((self.program.ty(whole.end)?.size, whole)));
            let leaf = self.plan(route.end).filter(|plan| matches!(plan.body, Body::Leaf(_)));
            let details = leaves::details(&self.program, route.end, of.details);
            Rc::new(Owner { route, whole: whole.map(|(size, whole)| (whole, size)), leaf, details })
        });
        state.owners.borrow_mut().push((path, owner.clone()));
        owner
    }

    fn route_to(&self, state: &State, path: &str) -> Option<Route> {
        let ty = self.program.ty(state.variables)?;
        ["", "* ", "* * "].iter().find_map(|deref| {
            ty.members.iter().find_map(|member| {
                let route = Route::compile(&self.program, member.of, &format!("{deref}~{path}"))?;
                Some(route.behind(state.offset.checked_add(member.offset)?))
            })
        })
    }
}

fn steps_or_nothing(steps: Box<[Step]>) -> Body {
    if steps.is_empty() { Body::Nothing } else { Body::Steps(steps) }
}

/// A pointer that may be followed: nobody else polls what it leads to.
fn is_owned(name: &str) -> bool {
    name.starts_with("alloc::boxed::Box<") || name.starts_with("&mut ")
}

/// A pointer with a vtable or a length.
fn is_wide(ty: &Type) -> bool {
    ty.members.len() == 2 && (ty.member("vtable").is_some() || ty.member("length").is_some())
}

fn one_step(via: Via) -> Body {
    Body::Steps([Step { offset: 0, is_branch: false, via }].into())
}

/// The struct with the future of a branch of a `join!`, where `ty` is one.
fn branch_of_join(ty: &Type) -> Option<TypeId> {
    let Shape::Variants(variants) = &ty.shape else { return None };
    let variants = variants.list.iter().filter(|_| wrappers::is_join_branch(ty.path()));
    variants.map(|variant| &variant.member).find(|member| member.name == "Future").map(|member| member.of)
}
