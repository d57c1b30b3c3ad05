//! Which types may store a waker.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use super::known_types;
use super::store::Layouts;
use crate::debuginfo::types::{Shape, TypeId};
use crate::host::lock::lock;

const WAKER: &str = "core::task::wake::Waker";
/// The most types that are searched for a waker.
const MAX_TYPES: usize = 1000;

impl Layouts<'_> {
    /// Whether values of the type `id`, or values behind their pointers, may contain a waker. `false` if the first
    /// [`MAX_TYPES`] types have none.
    pub(super) fn may_store_waker(&self, id: TypeId) -> bool {
        if let Some(known) = lock(&self.with_wakers).get(&id) {
            return *known;
        }
        let found = self.search_for_waker(id);
        lock(&self.with_wakers).insert(id, found);
        found
    }

    /// Searches the types that are reachable from `id`, the nearest first.
    fn search_for_waker(&self, id: TypeId) -> bool {
        let mut seen = FxHashSet::from_iter([id]);
        let mut queue = VecDeque::from([id]);
        while let Some(id) = queue.pop_front() {
            let Some(ty) = self.program.ty(id) else { continue };
            if ty.path() == WAKER {
                return true;
            }
            if known_types::holds_no_handle(ty.path()) {
                continue;
            }
            let variants = match &ty.shape {
                Shape::Variants(variants) => variants.list.as_slice(),
                _ => &[],
            };
            let target = match ty.shape {
                Shape::Pointer(target) => target,
                Shape::Array { element, .. } => Some(element),
                _ => None,
            };
            // Collections have untyped pointers to their values, and `T` as a parameter.
            let targets = target.into_iter().chain(ty.parameter("T"));
            let members = ty.members.iter().chain(variants.iter().map(|variant| &variant.member));
            for next in members.map(|member| member.of).chain(targets) {
                if seen.len() < MAX_TYPES && seen.insert(next) {
                    queue.push_back(next);
                }
            }
        }
        false
    }
}
