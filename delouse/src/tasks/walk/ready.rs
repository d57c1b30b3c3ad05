//! Tasks whose wake-up is under way, and futures in the middle of a poll.
//!
//! The driver takes a task's waker out of the descriptor first, and marks the task as woken then. In an image that is
//! made in between, the task is idle and its waker is stored nowhere: it waits for a descriptor that is ready.

use super::super::layout::{Body, Layout, Suspended};
use super::super::leaves::{Hint, contexts};
use super::super::{Direction, ResourceKind};
use super::Walker;
use crate::snapshot::Address;

/// A leaf at which nothing waits, by its wakers.
pub(super) struct Passed<'l> {
    layout: &'l Layout,
    address: Address,
    hint: Hint,
    /// Whether everything else that the futures around it wait for is known.
    known: Known,
}

/// The crates of the futures between a function and a leaf.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Only tokio.
    Tokio,
    /// Only [`CRATES`].
    Others,
    /// Also others.
    No,
}

/// Crates whose futures wait only for leaves that are in the table.
const CRATES: &[&str] = &[
    "actix_codec",
    "actix_http",
    "actix_rt",
    "actix_web",
    "async_tungstenite",
    "axum",
    "futures_util",
    "h2",
    "http_body_util",
    "hyper",
    "hyper_util",
    "tokio_native_tls",
    "tokio_rustls",
    "tokio_stream",
    "tokio_tungstenite",
    "tonic",
    "tower",
    "tungstenite",
    "ws_stream_tungstenite",
];

/// A leaf whose descriptor is ready for what the task waited for.
pub(super) struct Ready {
    address: Address,
    hint: Hint,
    direction: Direction,
}

impl<'w> Walker<'w, '_, '_> {
    /// What the leaf at `address` is ready for, if it is to be shown as a wait.
    pub(super) fn ready_for(&self, address: Address, hint: Hint) -> Option<Direction> {
        let is_it = |ready: &&Ready| ready.address == address && ready.hint == hint;
        self.ready.iter().find(is_it).map(|ready| ready.direction)
    }

    /// Records a leaf at which nothing waits, if its readiness may show that something did.
    pub(super) fn record_passed(&mut self, layout: &'w Layout, address: Address, hint: Hint) {
        if !matches!(&layout.body, Body::Leaf(leaf) if leaf.tells_readiness()) {
            return;
        }
        let known = |path: &str| match path.split("::").next().unwrap_or_default() {
            "tokio" | "tokio_util" => Known::Tokio,
            name if CRATES.contains(&name) => Known::Others,
            _ => Known::No,
        };
        let around = self.enclosing_frames().filter_map(|node| self.layouts.get(node.layout));
        let around = around.filter(|layout| !matches!(layout.body, Body::Coroutine(_)));
        let of =
            |layout: &Layout| self.layouts.program.ty(layout.of).map_or(Known::No, |ty| known(ty.path()));
        let known = around.map(of).fold(Known::Tokio, |all, one| match (all, one) {
            (Known::Tokio, one) => one,
            (Known::Others, Known::No) | (Known::No, _) => Known::No,
            (Known::Others, _) => Known::Others,
        });
        self.passed.push(Passed { layout, address, hint, known });
    }

    /// Whether a future in which no wait was found waited at a leaf that is ready, among the leaves passed `since`. The
    /// next walk shows it as a wait.
    pub(super) fn is_woken(&mut self, since: usize) -> bool {
        let passed = self.passed.get(since..).unwrap_or_default();
        if passed.is_empty() || self.runs {
            return false;
        }
        // Descriptors become ready: the same path may end differently in the next capture.
        self.caches_path = false;
        let ready = |direction: Direction| -> Vec<Ready> {
            let ready = passed.iter().filter(|passed| self.is_ready(passed, direction));
            ready.map(|passed| Ready { address: passed.address, hint: passed.hint, direction }).collect()
        };
        let reads = ready(Direction::Read);
        let found = if reads.is_empty() { ready(Direction::Write) } else { reads };
        let is_woken = !found.is_empty();
        self.ready.extend(found);
        is_woken
    }

    fn is_ready(&self, passed: &Passed<'_>, direction: Direction) -> bool {
        let Body::Leaf(leaf) = &passed.layout.body else { return false };
        // Sockets are ready to be written to most of the time: that counts for tasks that do write.
        let fits = match passed.hint.direction {
            Some(hint) => hint == direction,
            None => direction == Direction::Read,
        };
        fits && passed.known != Known::No
            && leaf.readiness(self.process, passed.address).is_some_and(|ready| ready.is_for(direction))
    }

    /// What a future waits for that is awaited by the innermost function around, and in which no leaf was found except
    /// those passed `since`.
    pub(super) fn kind_without_leaf(&self, since: usize) -> ResourceKind {
        let path = self.function_paths().next().unwrap_or_default();
        self.kind_of_function(&path, since)
    }

    /// The same for what the function with that path awaits.
    ///
    /// A future of tokio that does not wait for its descriptor, although that is not ready, has no budget left: tokio
    /// keeps its waker until other tasks were polled (`task/coop`).
    pub(super) fn kind_of_function(&self, path: &str, since: usize) -> ResourceKind {
        let passed = self.passed.get(since..).unwrap_or_default();
        if !passed.is_empty() && passed.iter().all(|passed| passed.known == Known::Tokio) {
            return ResourceKind::Yield;
        }
        contexts::without_leaf(path)
    }

    /// Whether what a function awaits shows that it has completed, by having nothing left inside.
    pub(super) fn is_over(&self, suspended: &Suspended) -> bool {
        let [field] = suspended.fields.as_ref() else { return false };
        self.layouts.get(field.layout).is_some_and(|layout| self.layouts.shows_completion(layout))
    }
}
