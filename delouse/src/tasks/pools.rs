//! The counters of the pool of threads for blocking calls that each runtime has: how many threads it may start, and how many
//! of them are idle (tokio's `runtime/blocking/pool.rs`).

use super::process::{Process, Program};
use super::route::Route;
use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;

/// More threads or queued calls than any pool has.
const MAX_COUNT: u64 = 1 << 32;

/// The counters of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    pub(super) is_full: bool,
    pub(super) queued: u64,
}

/// The routes from the `Arc<Handle>` of a scheduler to the counters of its pool.
pub(super) struct PoolRoutes {
    /// The workers of the runtime are among the threads in these two.
    most: Route,
    threads: Route,
    idle: Route,
    queued: Route,
}

impl PoolRoutes {
    /// `of` is the type of the `Arc`. `None` for a `LocalSet`, which has no pool.
    pub(super) fn learn(program: &Program<'_>, of: TypeId) -> Option<Self> {
        let inner = Route::compile(program, of, "* blocking_spawner inner *")?.end;
        let has = |member: &str| program.ty(inner).is_some_and(|inner| inner.member(member).is_some());
        let way = |way: &str| Route::compile(program, of, &format!("* blocking_spawner inner * {way}"));
        if !has("thread_cap") {
            return None;
        }
        Some(Self {
            most: way("thread_cap")?,
            threads: way("metrics num_threads")?,
            idle: way("metrics num_idle_threads")?,
            queued: way("metrics queue_depth")?,
        })
    }

    /// The counters of the pool of the scheduler whose `Arc` is stored at `place`.
    pub(super) fn read(&self, process: &Process<'_, '_>, place: Address) -> Option<Counters> {
        let number = |route: &Route| route.word(process, place).filter(|number| *number < MAX_COUNT);
        let (most, threads, idle) = (number(&self.most)?, number(&self.threads)?, number(&self.idle)?);
        Some(Counters { is_full: idle == 0 && threads >= most, queued: number(&self.queued)? })
    }
}
