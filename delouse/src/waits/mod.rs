//! What waits for what, what holds it, and what is wrong. The results are data, which `report` renders as text.

mod account;
mod blocked_threads;
mod blocked_worker;
mod blocking_pool;
mod busy_loop;
mod closed_sockets;
mod components;
mod connections;
pub(crate) mod diagnosis;
mod edges;
mod evidence;
mod files;
mod findings;
mod finished;
#[cfg(test)]
pub(crate) mod fixtures;
mod gaps;
mod graceful;
pub(crate) mod growing;
mod holders;
mod http2;
mod index;
mod kept;
mod kinds;
mod liveness;
pub(crate) mod location;
mod not_judged;
mod observation;
mod observations;
mod ownership;
mod passes;
mod permits;
mod resources;
pub(crate) mod sample;
mod shutdown;
mod stale_references;
mod starved;
#[cfg(all(test, feature = "dump", target_os = "linux", target_arch = "x86_64"))]
mod tests;
mod thread_locks;
mod thread_stacks;
mod threads;
mod unjudged;
mod wait;
mod wakers;

pub(crate) use closed_sockets::closed_sockets;
pub(crate) use connections::Kernel;
pub use diagnosis::Scope;
pub use evidence::{Doubt, Evidence, Party, TaskIds, TaskWait, ThreadAt};
pub use gaps::Gap;
#[cfg(feature = "dump")]
pub(crate) use graceful::{Graceful, graceful_shutdowns};
pub(crate) use kept::{ClosedSocket, Keeper, UnreadBody};
pub use location::CodeLocation;
pub(crate) use not_judged::{UnjudgedList, UnjudgedTasks};
pub use observation::ObservationKind;
pub(crate) use observation::{Held, Observation, Observed};
pub use unjudged::Unjudged;

use std::sync::Arc;

use passes::Passes;
use sample::Sample;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use threads::ThreadNodes;

use crate::tasks::layout::handles;
use crate::tasks::{Examination, ResourceKind, WaitsOn};

/// Finds what waits for what, and which waits will never end. `mains_rest`: no main future is being polled, as far as
/// the stacks of threads show. `kernel` describes connections. The sample has neither the tasks nor threads yet.
pub(crate) fn analyse(
    examination: &mut Examination<'_, '_, '_>,
    mains_rest: bool,
    kernel: &Kernel<'_>,
) -> Sample {
    if let Some(shortage) = &examination.listing.shortage {
        return not_known(examination, shortage);
    }
    let threads = ThreadNodes::add_to(examination);
    let analysis = analyse_with(examination, &threads, mains_rest, kernel);
    threads.remove_from(examination);
    analysis
}

/// The same, with the threads that are nodes.
fn analyse_with(
    examination: &Examination<'_, '_, '_>,
    threads: &ThreadNodes,
    mains_rest: bool,
    kernel: &Kernel<'_>,
) -> Sample {
    let locks = thread_locks::ThreadLocks::of(examination);
    let connections = connections::Connections::of(examination, kernel);
    let mut waits = resources::Waits::of(examination, (&locks, threads), &connections, mains_rest);
    let mut wanted = waits.wanted();
    let words = threads.words(examination);
    wanted.extend(words.values().flatten());
    let in_primitive = |task: u32| threads.wait(task).is_some();
    let mut survey = ownership::Survey::of(examination, &wanted, &locks.by_thread(), in_primitive);
    let mut ownership = survey.hand_over();
    threads.resolve(&words, &ownership, &mut waits, &examination.listing.tasks);
    let waits = waits;
    let living = threads.living(examination, &waits, &ownership);
    threads.add_stacks(examination, &waits, &mut ownership);
    let mut holders = holders::Holders::of(examination, &waits, &locks, ownership);
    holders.living = living;
    let nothing = stale_references::StaleReferences::default();
    let mut passes = Passes::of(examination, &waits, &holders, &nothing);
    let mut suspects = passes.suspects(&waits, &holders);
    // Statics are searched only if there would be a finding without them: they seldom hold anything, and take longer.
    if !stale_references::are_solid(&holders, &suspects)
        && survey.add_statics(examination, &mut holders.ownership)
    {
        let living = std::mem::take(&mut holders.living);
        holders = holders::Holders::of(examination, &waits, &locks, holders.ownership);
        holders.living = living;
        passes = Passes::of(examination, &waits, &holders, &nothing);
        suspects = passes.suspects(&waits, &holders);
    }
    let stale = stale_references::sample(examination, &holders, &suspects, threads);
    holders.confine(&stale.confined);
    if !stale.held.is_empty() || !stale.on_stacks.is_empty() {
        passes = Passes::of(examination, &waits, &holders, &stale);
    }
    let resources = passes.through_threads(&waits, &holders);
    if !resources.is_empty() {
        holders.elsewhere = threads.held_elsewhere(examination, &resources, &waits, &mut holders.ownership);
        if !holders.elsewhere.is_empty() {
            passes = Passes::of(examination, &waits, &holders, &stale);
        }
    }
    conclude(examination, threads, &waits, &holders, passes, &stale, mains_rest)
}

/// What follows from what is alive.
fn conclude(
    examination: &Examination<'_, '_, '_>,
    threads: &ThreadNodes,
    waits: &resources::Waits,
    holders: &holders::Holders,
    Passes { liveness, without_timeouts }: Passes,
    stale: &stale_references::StaleReferences,
    mains_rest: bool,
) -> Sample {
    let stuck = components::Graph::of(waits, holders, &liveness);
    let components = stuck.components();
    let gaps = Gap::of(examination, holders, mains_rest);
    let mut edges = edges::Edges::new(examination, waits, holders, threads);
    let all_edges = edges.all();
    let mut findings = findings::findings(&stuck, components, &liveness, stale, &gaps, &mut edges);
    if let Some(liveness) = without_timeouts {
        let stuck = components::Graph::of(waits, holders, &liveness);
        findings::until_timeout(&stuck, &liveness, stale, &gaps, &mut edges, &mut findings);
    }
    let not_judged = UnjudgedList::of(&liveness, &mut edges, &findings);
    if !examination.process.memory.snapshot().capture().consistent {
        findings.iter_mut().for_each(|finding| finding.doubt(Doubt::TornCapture));
    }
    // The analysis may have needed further types, and exceeded a limit.
    if let Some(shortage) = examination.process.types.image().shortage() {
        return not_known(examination, &shortage.to_string());
    }
    let graph = WaitGraph { tasks: threads.tasks(), edges: all_edges, gaps };
    let inputs = busy_loop::inputs(examination, mains_rest);
    let not_covered = holders.ownership.cut.then_some(NotCovered::Holders).into_iter().collect();
    let keeper = finished::keeper(examination);
    let unread_bodies = http2::unread_bodies(examination);
    Sample { graph, findings, not_judged, inputs, keeper, unread_bodies, not_covered, ..Sample::default() }
}

/// The result if not all tasks or types were read: what holds a resource or would wake a task may not have been read.
fn not_known(examination: &Examination<'_, '_, '_>, shortage: &str) -> Sample {
    let graph = WaitGraph { tasks: examination.listing.tasks.len(), ..WaitGraph::default() };
    let not_covered = vec![NotCovered::Waits { shortage: shortage.to_owned() }];
    Sample { graph, not_covered, ..Sample::default() }
}

/// What waits for what, and what can release it, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct WaitGraph {
    /// How many tasks were examined.
    pub tasks: usize,
    /// One for each wait. Every branch of a `select!` has its own.
    pub edges: Vec<Edge>,
    /// What delouse did not read: holders in it are not listed. If there is no gap, tasks have no other handles than
    /// the listed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// One task or thread that waits for one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Edge {
    /// Id of the task that waits; 0 for a `main` future, `None` for a thread that no task runs on.
    pub waiter: Option<u64>,
    /// The OS thread that waits, where it is blocked itself (in a lock of `std`, say).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i32>,
    /// `function at file:line` of the program's innermost function that waits.
    #[serde(with = "location::text")]
    #[schemars(with = "Option<String>")]
    pub place: Option<Arc<CodeLocation>>,
    /// What it waits for.
    pub resource: Arc<Resource>,
    /// The type of the innermost future that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<Arc<str>>,
    /// What is known of a wait that no task can end, as in `waits_on` of the task: for a timer, the kernel, or something
    /// that delouse does not know. Such a wait has no holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Arc<WaitsOn>>,
    /// What can release it, or wake the waiter, as far as it was found.
    // Shared, as the others are, by all edges with the same place or resource, so that many cost no more than one.
    pub holders: Arc<[Holder]>,
    /// How many further tasks are holders.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_holders: usize,
    /// More holders exist than those that were found: in statics, on threads, or in what was not read.
    pub held_elsewhere: bool,
    /// delouse does not know the handles of this kind of resource, so that it finds no holders.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unknown_handles: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A thing that can be waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Resource {
    /// `mutex-1`, `channel-3`: its name within this capture, by kind, counted in the order of addresses.
    pub id: String,
    /// Its kind; the end of the channel that is waited for tells receivers from senders.
    pub kind: ResourceKind,
    /// Its address, hexadecimal: the same as in `waits_on` of a task.
    pub address: Option<String>,
}

/// A task or thread that holds a resource, or a handle that can signal it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Holder {
    /// Id of the task that holds it; 0 for a `main` future, `None` where no task does.
    pub task: Option<u64>,
    /// The OS thread that holds it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i32>,
    /// The variable that it is in, with the path from there: `guard`, `hub.senders[…]`.
    pub variable: String,
    /// `function at file:line`: the function that has the variable, where it is suspended.
    #[serde(with = "location::text")]
    #[schemars(with = "Option<String>")]
    pub place: Option<Arc<CodeLocation>>,
    /// What it is: `MutexGuard`, `Sender`, `JoinHandle`, …; empty for a thread whose stack has the address of a lock.
    pub handle: String,
    /// Counters confirm it; otherwise it is one of several possible holders.
    pub certain: bool,
    /// It is part of a value that others share, such as an `Arc` of the program's state: the task can reach it, but
    /// need not use it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
}

impl Holder {
    /// Whether it holds no part of the resource, but has access to it: it can notify, or add permits.
    pub(crate) fn is_access(&self) -> bool {
        handles::is_access(&self.handle)
    }
}

/// Something that is wrong, or looks so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What kind of trouble.
    pub(crate) kind: FindingKind,
    /// Whether the evidence is complete.
    pub(crate) severity: Severity,
    /// Ids of the tasks that it is about.
    pub(crate) tasks: Vec<u64>,
    /// What it is concluded from. Where one fact is what the finding is about (open files, growth, a blocked worker), it is the
    /// first: the summary is made of it.
    pub(crate) evidence: Vec<Evidence>,
}

impl Finding {
    /// Makes it a suspicion, for that reason.
    fn doubt(&mut self, why: Doubt) {
        self.severity = Severity::Suspected;
        self.evidence.push(Evidence::Doubt { why });
    }
}

/// Something that an analysis does not cover: it may be wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotCovered {
    /// What tasks wait for: not all tasks or types were read.
    Waits { shortage: String },
    /// Some holders: the search for them ran out of time.
    Holders,
    /// What tasks wait for: the debug information has no types.
    Types,
    /// So many bytes of memory, which a truncated core file lacks: tasks and holders may have been there.
    Memory { lacking: u64 },
    /// Tasks and threads: nothing was captured.
    Capture { why: String },
}

/// Kinds of trouble, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// Tasks or threads that wait for one another in a circle.
    Deadlock,
    /// A worker that has been inside one poll for too long.
    BlockedWorker,
    /// A task that is polled without pause, because what it takes from has ended.
    BusyLoop,
    /// A future that owns what others wait for, and that the task that owns it does not poll.
    Futurelock,
    /// Tasks that keep one another alive and that nothing outside of them can wake.
    LeakedTasks,
    /// A task that nothing can wake: nothing has a waker of it.
    UnwakeableTask,
    /// A pool for blocking calls of which all threads wait, while calls are in its queue.
    BlockingPool,
    /// Tasks that were woken and that no worker takes.
    StarvedTasks,
    /// The drop of a runtime that waits for calls which do not return.
    Shutdown,
    /// The limit of open files is near.
    FileDescriptors,
    /// Finished tasks whose results handles keep, and that only become more.
    FinishedTasks,
    /// A group of identical stacks that only grows.
    GrowingGroup,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// It will not end by itself: the evidence is complete.
    Certain,
    /// It looks like it; the evidence has a gap, which is named.
    Suspected,
}
