//! What the states of coroutines await, and what their variables own.

use std::sync::Arc;

use super::labels::Label;
use super::model::{Body, Coroutine, Interest, Owner, State, Suspended};
use super::store::Layouts;
use crate::debuginfo::types::{Source, TypeId, names};
use crate::host::lock::lock;
use crate::tasks::route::Route;
use crate::tasks::{Origin, leaves};

impl Layouts<'_> {
    /// The future that a state awaits, compiled for the first task in that state.
    pub(crate) fn suspended<'s>(&self, id: TypeId, coroutine: &Coroutine, state: &'s State) -> &'s Suspended {
        state.suspended.get_or_init(|| {
            let variables = self.program.ty(state.variables).filter(|_| state.is_suspended());
            let awaitee = variables.as_ref().and_then(|ty| ty.member("__awaitee"));
            let field = awaitee.and_then(|awaitee| {
                self.compiler(Interest::Futures).field(awaitee, state.offset, || Label::NONE)
            });
            let name = |of: TypeId| self.program.ty(of).map(|ty| names::ty(&ty.name)).unwrap_or_default();
            let (source, at_declaration) = self.line(id, coroutine, state);
            Suspended {
                source,
                at_declaration,
                fields: field.into_iter().collect(),
                awaitee: awaitee.map(|awaitee| name(awaitee.of).into()),
            }
        })
    }

    /// The line of a state; `true` if it is the line of the function's declaration.
    ///
    /// If the `.await` is in a macro, the type has the line in the macro. That is shown for a macro of the program
    /// itself; for a macro of a library, the line of its call is shown.
    fn line(&self, id: TypeId, coroutine: &Coroutine, state: &State) -> (Option<Source>, bool) {
        let types = &self.program.types;
        let written = state.written.as_ref();
        let head = coroutine.states.iter().find(|state| state.value == 0);
        let head = head.and_then(|head| head.written.as_ref());
        let own = types.is_own(&coroutine.path);
        let is_own = |source: &Source| Origin::of_file(&source.file) == Origin::User;
        let fits =
            |source: &Source| head.is_none_or(|head| head.file == source.file) && (!own || is_own(source));
        if written.is_none_or(fits) {
            return (written.cloned(), false);
        }
        let site = types.suspension(id, state.value).and_then(|suspension| suspension.site);
        if let Some(site) = site.filter(|site| fits(site) || is_own(site)) {
            return (Some(site), false);
        }
        match written.filter(|source| is_own(source)) {
            Some(written) => (Some(written.clone()), false),
            None => (head.filter(|head| !own || is_own(head)).cloned(), true),
        }
    }

    /// The route from a coroutine's state to something of the type at `path`, which one of its variables is,
    /// has or points to; and from there to the whole that it is part of.
    pub(in crate::tasks) fn owner(&self, state: &State, of: leaves::Owner) -> Option<Arc<Owner>> {
        let path = of.path;
        if let Some((_, known)) = lock(&state.owners).iter().find(|(known, _)| *known == path) {
            return known.clone();
        }
        let owner = self.route_to(state, path).map(|route| {
            let whole = Route::compile(&self.program, route.end, of.whole);
            let whole = whole.and_then(|whole| Some((self.program.ty(whole.end)?.size, whole)));
            let leaf = self.of(Interest::Futures, route.end);
            let leaf = leaf.filter(|layout| matches!(layout.body, Body::Leaf(_))).map(|layout| layout.id);
            let details = leaves::details(&self.program, route.end, of.details);
            Arc::new(Owner { route, whole: whole.map(|(size, whole)| (whole, size)), leaf, details })
        });
        lock(&state.owners).push((path, owner.clone()));
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
