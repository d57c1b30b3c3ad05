//! When a future completes, by its type.

use std::sync::Arc;

use super::compile::Compiler;
use super::model::Completion;
use crate::debuginfo::types::{Shape, Type, TypeId};

/// Futures that complete when all futures that they poll have (futures 0.3).
const JOINS: &[&str] = &["futures_util::future::join::", "futures_util::future::join_all::JoinAll"];

/// Futures and wrappers that complete when the future that they poll does.
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

impl Compiler<'_, '_> {
    /// When a future of that type completes.
    pub(super) fn completion(&self, id: TypeId, ty: &Type) -> Completion {
        let path = ty.path();
        let is_in = |list: &[&str]| list.iter().any(|prefix| path.starts_with(prefix));
        if matches!(&ty.shape, Shape::Variants(variants) if variants.coroutine) {
            Completion::With
        } else if ty.member("_ref__disabled").is_some() {
            // A branch that is not known could complete it.
            let tuple = self.futures_of_select(id).and_then(|route| self.program().ty(route.end));
            let known = |tuple: Arc<Type>| tuple.members.iter().all(|member| self.leads_on(member.of));
            if tuple.is_some_and(known) { Completion::WithAny } else { Completion::Unknown }
        } else if path.contains("{closure_env#") && !is_in(&["tokio::"]) {
            Completion::Closure
        } else if is_in(JOINS) {
            Completion::WithAll
        } else if is_in(WRAPPERS) {
            Completion::With
        } else if is_in(&["tokio::"]) {
            Completion::WithAny
        } else {
            Completion::Unknown
        }
    }
}
