//! Who waits for whom, who holds it, and what is wrong.

pub(crate) mod blocked_worker;
pub(crate) mod diagnosis;
mod edges;
pub(crate) mod files;
mod findings;
pub(crate) mod gaps;
pub(crate) mod growing;
mod handles;
mod holders;
mod index;
mod islands;
mod liveness;
pub(crate) mod look;
#[cfg(test)]
pub(crate) mod made_up;
pub(crate) mod not_judged;
mod ownership;
mod remains;
mod resources;
pub(crate) mod starved;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests;
mod thread_locks;
pub(crate) mod words;

pub use diagnosis::LookedAt;
pub use gaps::Gap;
pub use not_judged::NotJudged;
pub(crate) use not_judged::NotJudgedList;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tasks::{Examination, ResourceKind, WaitsOn};

/// What one capture tells of waiting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Analysis {
    pub(crate) graph: WaitGraph,
    /// Worst first.
    pub(crate) findings: Vec<Finding>,
    /// Tasks of which it is not known whether they will go on.
    pub(crate) not_judged: NotJudgedList,
    /// What is missing or doubtful.
    pub(crate) notes: Vec<String>,
}

impl Analysis {
    /// Of tasks or types that were not all read: a holder, and whatever else would wake a task, may be among the others.
    fn not_known(examination: &Examination<'_, '_, '_>, shortage: &str) -> Self {
        let graph = WaitGraph { tasks: examination.listing.tasks.len(), ..WaitGraph::default() };
        let note = format!("what tasks wait for and who holds it, as not all was read: {shortage}");
        Self { graph, notes: vec![note], ..Self::default() }
    }
}

/// Finds out who waits for whom, and what will never end. `mains_rest`: no main future is being polled, as far as threads
/// tell.
pub(crate) fn analyse(examination: &Examination<'_, '_, '_>, mains_rest: bool) -> Analysis {
    if let Some(shortage) = &examination.listing.shortage {
        return Analysis::not_known(examination, shortage);
    }
    let locks = thread_locks::ThreadLocks::of(examination);
    let waits = resources::Waits::of(examination, &locks, mains_rest);
    let (plans, wanted) = (ownership::Plans::new(examination.process), waits.wanted());
    let mut survey = ownership::Survey::of(examination, &plans, &wanted);
    let mut holders = holders::Holders::of(examination, &waits, &locks, survey.hand_over());
    let nothing = remains::Remains::default();
    let mut liveness = liveness::Liveness::of(examination, &waits, &holders, &nothing);
    let objects = |holders: &holders::Holders, liveness: &liveness::Liveness| {
        let stuck = islands::Graph::of(&waits, holders, liveness);
        stuck.objects(&stuck.islands())
    };
    let mut suspects = objects(&holders, &liveness);
    // Before anybody is accused, those are asked who are seldom at fault and take longer.
    if !remains::are_solid(&holders, &suspects) && survey.add_statics(examination, &mut holders.ownership) {
        holders = holders::Holders::of(examination, &waits, &locks, holders.ownership);
        liveness = liveness::Liveness::of(examination, &waits, &holders, &nothing);
        suspects = objects(&holders, &liveness);
    }
    let remains = remains::look(examination, &holders, &suspects);
    holders.confine(&remains.confined);
    if !remains.held.is_empty() || !remains.on_stacks.is_empty() {
        liveness = liveness::Liveness::of(examination, &waits, &holders, &remains);
    }
    let stuck = islands::Graph::of(&waits, &holders, &liveness);
    let islands = stuck.islands();
    let gaps = Gap::of(examination, &holders, mains_rest);
    let mut teller = edges::Teller::new(examination, &waits, &holders);
    let edges = teller.edges();
    let mut findings = findings::findings(&stuck, islands, &liveness, &remains, &gaps, &mut teller);
    let not_judged = NotJudgedList::of(&liveness, &mut teller, &findings);
    if !examination.process.memory.snapshot().capture().consistent {
        findings.iter_mut().for_each(Finding::doubt_torn_memory);
    }
    // Types that nothing needed before may have been asked for.
    if let Some(shortage) = examination.process.types.image().shortage() {
        return Analysis::not_known(examination, &shortage.to_string());
    }
    let graph = WaitGraph { tasks: examination.listing.tasks.len(), edges, gaps };
    let cut = "too much memory to see who holds what in time: holders may be missing";
    let notes = holders.ownership.cut.then(|| cut.to_owned()).into_iter().collect();
    Analysis { graph, findings, not_judged, notes }
}

/// Who waits for what, and who can let go of it, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitGraph {
    /// How many tasks were looked at.
    pub tasks: usize,
    /// One for each wait. Every branch of a `select!` has its own.
    pub edges: Vec<Edge>,
    /// What delouse did not read: holders that are there are not listed. Without a gap, no task has more than what is
    /// listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// One task or thread that waits for one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Edge {
    /// Id of the task that waits; 0 for a `main` future, `None` for a thread that no task runs on.
    pub waiter: Option<u64>,
    /// The OS thread that waits, where it is blocked itself (in a lock of `std`, say).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i32>,
    /// `function at file:line` of the user's frame that waits.
    pub place: Option<Arc<str>>,
    /// What it waits for.
    pub resource: Arc<Resource>,
    /// The type of the innermost future that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<Arc<str>>,
    /// What is known of a wait that no task can end, as in `waits_on` of the task: for a timer, the kernel, or something
    /// that delouse does not know. Such a wait has no holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Arc<WaitsOn>>,
    /// Who can let go of it, or wake the waiter: those that were found.
    // Shared, as the others are, by all who wait there or for that, so that many cost no more than one.
    pub holders: Arc<[Holder]>,
    /// How many more tasks than those are holders, too.
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
pub struct Resource {
    /// `mutex-1`, `channel-3`: its name within this capture, by kind, counted in the order of addresses.
    pub id: String,
    /// Its kind; the end of the channel that is waited for tells receivers from senders.
    pub kind: ResourceKind,
    /// Its address, hexadecimal: the same as in `waits_on` of a task.
    pub address: Option<String>,
}

/// One that holds a resource, or a handle that can signal it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Id of the task that holds it; 0 for a `main` future, `None` where no task does.
    pub task: Option<u64>,
    /// The OS thread that holds it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i32>,
    /// The variable that it is in, with the way from there: `guard`, `hub.senders[…]`.
    pub variable: String,
    /// `function at file:line`: the function that has the variable, where it is suspended.
    pub place: Option<String>,
    /// What it is: `MutexGuard`, `Sender`, `JoinHandle`, ….
    pub handle: String,
    /// Counters confirm it; else it is one of several that may be.
    pub certain: bool,
    /// It is part of a value that others share, an `Arc` of a program's state, say: the task gets at it, which does not
    /// mean that it uses it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
}

impl Holder {
    /// Whether it has no part of the resource, but only gets at it: it can notify, or add permits.
    pub(crate) fn is_access(&self) -> bool {
        handles::is_access(&self.handle)
    }
}

/// Something that is wrong, or looks so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What kind of trouble.
    pub kind: FindingKind,
    /// How bad, and how sure.
    pub severity: Severity,
    /// One sentence: what, which tasks, where in the user's code.
    pub summary: String,
    /// Ids of the tasks that it is about.
    pub tasks: Vec<u64>,
    /// What it is concluded from, each a sentence that can be checked.
    pub evidence: Vec<String>,
    /// What would release it, or where to look next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// Its thread rested a moment before.
    fn doubt_main(&mut self) {
        self.severity = Severity::Suspected;
        self.evidence.push(
            "not certain: that the main future waits there is concluded from its thread, which rests"
                .to_owned(),
        );
    }

    /// Tasks that hand something to and fro are never seen both awake where each is read at a moment of its own.
    fn doubt_torn_memory(&mut self) {
        self.severity = Severity::Suspected;
        self.evidence.push(
            "not certain: memory was read while the program ran, each task at a moment of its own".to_owned(),
        );
    }
}

/// Kinds of trouble, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Tasks or threads that wait for one another in a circle.
    Deadlock,
    /// A worker that has been inside one poll for too long.
    BlockedWorker,
    /// A future that owns what others wait for, and that the task that owns it does not poll.
    Futurelock,
    /// Tasks that keep one another alive and that nothing outside of them can wake.
    LeakedTasks,
    /// A task that nothing can wake: nobody has a waker for it.
    UnwakeableTask,
    /// Tasks that were woken and that no worker takes.
    StarvedTasks,
    /// The limit of open files is near.
    FileDescriptors,
    /// A group of identical stacks that only grows.
    GrowingGroup,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will not end by itself: the evidence is complete.
    Certain,
    /// It looks like it; the evidence has a gap, which is named.
    Suspected,
}
