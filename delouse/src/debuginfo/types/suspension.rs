//! A state of a coroutine, with what its poll function knows of it.

use std::sync::Arc;

use super::bodies::{Body, Effort};
use super::model::{Shape, Source, Type, TypeId, Variant};
use super::scopes::{Scopes, Variable};
use super::{Types, decode, names};
use crate::debuginfo::lock::lock;

/// The `.await` that a coroutine is suspended at.
#[derive(Debug, Default)]
pub(crate) struct Suspension {
    /// The line of the `.await`, or of the call of the macro of another crate that it is in.
    pub(crate) site: Option<Source>,
    /// The named variables of the function, outermost first, each with whether it is in scope there; none where that is
    /// not known.
    pub(crate) variables: Vec<(Variable, bool)>,
    /// Those of them that the coroutine keeps have their offsets in it.
    pub(crate) has_offsets: bool,
}

/// What a state awaits, and where that is written.
struct State {
    awaitee: String,
    source: Option<Source>,
}

impl Types<'_> {
    /// What the poll function of a coroutine says of the state with that value.
    pub(crate) fn suspension(&self, coroutine: TypeId, state: u64) -> Option<Suspension> {
        let ty = self.get(coroutine)?;
        let (states, at) = self.states(&ty, state)?;
        let body = lock(&self.bodies).find(self, coroutine, &ty.name, Effort::Crate)?;
        let scopes = body.scopes(self)?;
        let sites = self.sites(scopes, &states, at);
        let first = *sites.first()?;
        let site = first.source.clone();
        let is_one_line = sites.iter().all(|other| other.source == site);
        let is_one = sites.len() == 1 && body.is_of(self, &ty.name);
        Some(Suspension {
            site: site.filter(|_| is_one_line),
            variables: if is_one { scopes.by_scope(first) } else { Vec::new() },
            has_offsets: scopes.has_offsets,
        })
    }

    /// All states of a coroutine that are at an `.await`, and which of these has that value.
    fn states(&self, ty: &Type, state: u64) -> Option<(Vec<State>, usize)> {
        let Shape::Variants(variants) = &ty.shape else { return None };
        let suspended = |variant: &&Variant| {
            let name = decode::name(&self.units, variant.member.of);
            name.is_some_and(|name| names::last_segment(&name).starts_with("Suspend"))
        };
        let variants: Vec<&Variant> = variants.list.iter().filter(suspended).collect();
        let at = variants.iter().position(|variant| variant.value == Some(state))?;
        let state = |variant: &&Variant| {
            let variables = self.get(variant.member.of);
            let awaitee = variables.and_then(|ty| Some(ty.member("__awaitee")?.of));
            let awaitee = awaitee.and_then(|of| decode::name(&self.units, of)).unwrap_or_default();
            State { awaitee, source: variant.source.clone() }
        };
        Some((variants.iter().map(state).collect(), at))
    }

    /// The `.await`s of a poll function that the state may be at: those with its line, or with the type that it awaits.
    /// Of several, if they are as many as there are such states, the one at the same place in the order of lines.
    fn sites<'s>(&self, scopes: &'s Scopes, states: &[State], at: usize) -> Vec<&'s Variable> {
        let Some(state) = states.get(at) else { return Vec::new() };
        let awaits: Vec<(String, &Variable)> = scopes
            .awaits()
            .into_iter()
            .map(|of| (decode::name(&self.units, of.of).unwrap_or_default(), of))
            .collect();
        let has_line = |state: &State, source: &Option<Source>| source.is_some() && *source == state.source;
        // In a macro of another crate, where no `.await` has the line that the type says.
        let is_hidden = |state: &State| {
            let same =
                |(name, of): &(String, &Variable)| *name == state.awaitee && has_line(state, &of.source);
            !awaits.iter().any(same)
        };
        let hidden = is_hidden(state);
        let is_peer = |other: &&State| match hidden {
            true => other.awaitee == state.awaitee && is_hidden(other),
            false => other.awaitee == state.awaitee && other.source == state.source,
        };
        let taken = |source: &Option<Source>| {
            states.iter().any(|other| other.awaitee == state.awaitee && has_line(other, source))
        };
        let fits = |source: &Option<Source>| if hidden { !taken(source) } else { has_line(state, source) };
        let matching = awaits.iter().filter(|(name, of)| *name == state.awaitee && fits(&of.source));
        let mut sites: Vec<&Variable> = matching.map(|(_, of)| *of).collect();
        if sites.is_empty() {
            // The parameters are written in another way, or are those of another copy of a generic function.
            let path = names::without_parameters(&state.awaitee);
            let alike = awaits.iter().filter(|(name, _)| names::without_parameters(name) == path);
            sites = alike.map(|(_, of)| *of).collect();
        }
        let peers = states.iter().filter(is_peer).count();
        let before = states.iter().take(at).filter(is_peer).count();
        match sites.get(before) {
            Some(site) if peers == sites.len() => vec![*site],
            _ => sites,
        }
    }

    /// The poll function of a coroutine, for its linkage name.
    pub(crate) fn body(&self, coroutine: TypeId) -> Option<Arc<Body>> {
        let name = decode::name(&self.units, coroutine)?;
        lock(&self.bodies).find(self, coroutine, &name, Effort::Symbols)
    }
}
