//! When futures end: a `join!` is taken apart into its branches only where nothing but these ends it, and a branch is
//! stuck only where all that could end it is known.

use std::rc::Rc;

use super::plan::Plans;
use crate::debuginfo::types::{Shape, Type, TypeId};
use crate::tasks::futures_of_select;

/// When a future ends that is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// With what it polls: `async` functions, pointers, wrappers.
    With,
    /// With all that it polls: `Join`, `JoinAll`.
    WithAll,
    /// A closure: with all in a `tokio::join!`, else nobody knows.
    Closure,
    /// When something ends that it polls, as far as that is known: what tokio has, a `select!`.
    WithAny,
    /// Nobody knows.
    Unknown,
}

/// Futures that end with all that they poll (futures 0.3).
const JOINS: &[&str] = &["futures_util::future::join::", "futures_util::future::join_all::JoinAll"];

/// Futures and their wrappers that end with the one that they poll.
const WRAPPERS: &[&str] = &[
    "core::",
    "alloc::",
    "std::",
    "(",
    "&",
    "[",
    "futures_util::future::maybe_done::MaybeDone",
    "tokio::future::maybe_done::MaybeDone",
    "tokio::runtime::task::trace::",
    "tokio::task::coop::",
    "tracing::instrument::Instrumented",
];

impl Plans<'_, '_, '_> {
    /// When a future of that type ends.
    pub(super) fn ends(&self, id: TypeId) -> Ends {
        let Some(ty) = self.process.ty(id) else { return Ends::Unknown };
        let path = ty.path();
        let is_in = |list: &[&str]| list.iter().any(|prefix| path.starts_with(prefix));
        if matches!(&ty.shape, Shape::Variants(variants) if variants.coroutine) {
            Ends::With
        } else if ty.member("_ref__disabled").is_some() {
            // What it polls besides what we know could end it.
            let tuple = futures_of_select(self.process, id).and_then(|way| self.process.ty(way.end));
            let known = |tuple: Rc<Type>| tuple.members.iter().all(|member| self.leads_on(member.of));
            if tuple.is_some_and(known) { Ends::WithAny } else { Ends::Unknown }
        } else if path.contains("{closure_env#") && !is_in(&["tokio::"]) {
            Ends::Closure
        } else if is_in(JOINS) {
            Ends::WithAll
        } else if is_in(WRAPPERS) {
            Ends::With
        } else if is_in(&["tokio::"]) {
            Ends::WithAny
        } else {
            Ends::Unknown
        }
    }
}
