//! How many wakers of a task exist, and whether all of them were found.

use rustc_hash::FxHashSet;

use super::account::Account;
use super::holders::Holders;
use super::ownership::Node;
use super::resources::Waits;
use super::wait::Wait;
use crate::snapshot::Address;
use crate::tasks::TaskPlace;
use crate::tasks::layout::handles::Roles;

/// Bits of a task's state word: `runtime/task/state.rs`.
const NOTIFIED: u64 = 1 << 2;
const JOIN_INTEREST: u64 = 1 << 3;
const REFERENCE: u64 = 1 << 6;

/// Whether all wakers of a task were found, so that only what can reach one of these can wake it.
///
/// Futures of tokio have one each, which is not searched for. A waker that only the task itself has is in a node of a
/// list: something that was not found refers to that node.
pub(super) fn has_all_wakers(holders: &Holders, waits: &Waits, place: &TaskPlace, wait: &Wait) -> bool {
    let parts = &holders.ownership.parts;
    let mut places = FxHashSet::default();
    let mut is_reached = false;
    for holding in holders.of_wait(wait) {
        if !holding.uncertain && holding.solid {
            places.insert(holding.place);
            is_reached |= parts.task_of(holding.owner) != Some(wait.task);
        }
    }
    let waits = waits.of_task(wait.task);
    let of_tokio = |wait: &&Wait| {
        let path = place.leaves.get(wait.leaf).map_or("", |leaf| leaf.path);
        path.starts_with("tokio::") || path.starts_with("tokio_util::")
    };
    let by_wakers = waits.iter().filter(|wait| wait.is_by_wakers()).count();
    let aborts = place.header.map_or(0, |header| aborts(holders, header));
    let found = (places.len() + waits.iter().filter(of_tokio).count()) as u64 + aborts;
    is_reached && places.len() >= by_wakers && wakers(place) == Some(found)
}

/// How many wakers and `AbortHandle`s of a task there are: references that neither the list of all tasks nor a
/// `JoinHandle` has.
///
/// An idle task has one reference for its place in the list, one for a `JoinHandle`, and one for each waker
/// and each `AbortHandle` (`runtime/task/state.rs`).
pub(super) fn wakers(place: &TaskPlace) -> Option<u64> {
    let state = place.state?;
    let known = 1 + u64::from(state & JOIN_INTEREST != 0) + u64::from(state & NOTIFIED != 0);
    (state / REFERENCE).checked_sub(known)
}

/// How many `AbortHandle`s of a task certainly exist. A stale copy of one must not be counted in the place of a waker.
pub(super) fn aborts(holders: &Holders, header: Address) -> u64 {
    let exact = |owner| match owner {
        Node::Object(object) => holders.account_of_object(object) == Account::Exact,
        Node::Task(_) | Node::Part(_) | Node::Statics => true,
    };
    let found = holders.of_task(header, Roles::ABORT);
    let sure = found.filter(|holding| holding.solid && !holding.uncertain && exact(holding.owner));
    sure.map(|holding| holding.place).collect::<FxHashSet<Address>>().len() as u64
}

/// Whether a `JoinHandle` of a task exists.
pub(super) fn has_join_handle(place: &TaskPlace) -> bool {
    place.state.is_some_and(|state| state & JOIN_INTEREST != 0)
}
