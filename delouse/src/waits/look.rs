//! What one look at the program shows: tasks, threads, who waits for whom. Findings compare two or more of them.

use std::collections::HashMap;
use std::time::Duration;

use super::{Finding, NotJudgedList, WaitGraph};
use crate::tasks::{Listing, Task};
use crate::threads::ThreadStack;

/// One look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// When, on a clock that all looks share.
    pub(crate) at: Duration,
    /// Every task.
    pub(crate) listing: Listing,
    /// Every thread: captured between this look's tasks and those of the looks next to it.
    pub(crate) threads: Vec<ThreadStack>,
    /// Who waits for whom.
    pub(crate) graph: WaitGraph,
    /// What is wrong by this look alone.
    pub(crate) findings: Vec<Finding>,
    /// Tasks of which it is not known whether they will go on.
    pub(crate) not_judged: NotJudgedList,
    /// What its analysis did not come to the end of.
    pub(crate) doubts: Vec<String>,
}

impl Look {
    /// The task with that id; none for 0, which several `main` futures share.
    pub(crate) fn task(&self, id: u64) -> Option<&Task> {
        let at = self.listing.tasks.binary_search_by_key(&id, |task| task.id).ok()?;
        self.listing.tasks.get(at).filter(|_| id != 0)
    }

    pub(crate) fn thread(&self, tid: i32) -> Option<&ThreadStack> {
        self.threads.iter().find(|thread| thread.tid == tid)
    }

    /// How many tasks the scheduler of a thread has taken so far.
    pub(crate) fn rounds(&self, tid: i32) -> Option<u64> {
        self.listing.rounds.iter().find(|(of, _)| *of == tid).map(|(_, rounds)| *rounds)
    }

    /// How many distinct resources somebody waits for.
    pub(crate) fn resources(&self) -> usize {
        let ids: HashMap<&str, ()> = self.graph.edges.iter().map(|e| (e.resource.id.as_str(), ())).collect();
        ids.len()
    }
}
