//! Which runtimes there are, and which of the candidates are their tasks.

use super::Lister;
use crate::snapshot::Address;
use crate::tasks::TaskState;
use crate::tasks::candidates::{Candidate, Candidates};
use crate::tasks::contexts::{self, ThreadContext};
use crate::tasks::header::{Kind, Scheduler, Stage};
use crate::tasks::root::{Root, own_scheduler};
use crate::tasks::runtimes::Runtimes;

impl<'l, 'p, 'i> Lister<'l, 'p, 'i> {
    /// Finds runtimes in all possible ways, and returns what the threads say about them.
    pub(super) fn learn_runtimes(
        &mut self,
        runtimes: &mut Runtimes<'_, 'l, 'p, 'i>,
        roots: &[Root],
        candidates: &Candidates,
    ) -> Vec<ThreadContext> {
        let vtables = self.knowledge.vtables(self.process);
        // The vtables of a few tasks have the types of all schedulers.
        for vtable in vtables.iter().take(64) {
            if let Some(kind) = self.headers.kind(*vtable) {
                runtimes.learn(&kind);
            }
        }
        for root in roots {
            if let Root::Handle { address } = root {
                runtimes.add_handle(*address, &mut self.notes);
            }
        }
        let learn = || contexts::Routes::learn(self.process, self.process.memory.snapshot().arch());
        let routes = self.knowledge.contexts.get_or_init(learn).as_ref();
        let contexts = contexts::thread_contexts(self.process, routes, &mut self.notes);
        let entered = contexts.iter().filter(|_| self.options.entered);
        for handle in entered.filter_map(|context| context.handle) {
            runtimes.add_handle(handle, &mut self.notes);
        }
        for Candidate { header, kind, .. } in candidates.iter().filter(|c| c.list().is_none()) {
            if let Scheduler::Shared(_, flavor) = kind.scheduler
                && self.is_sound(*header, kind)
                && let Some(place) = header.checked_add(kind.scheduler_at)
            {
                runtimes.learn(kind);
                runtimes.add(flavor, place, &mut self.notes);
            }
        }
        contexts
    }

    /// Adds the tasks of all runtimes but the one that `roots` say is of this crate.
    pub(super) fn add_found(
        &mut self,
        runtimes: &Runtimes<'_, 'l, 'p, 'i>,
        roots: &[Root],
        candidates: &Candidates,
    ) {
        let own = own_scheduler(self.process, roots);
        // In the order of their addresses, so that neighbours in memory are read together.
        for candidate in candidates.iter() {
            let Some(list) = candidate.list().filter(|list| Some(*list) != own) else { continue };
            let runtime = runtimes.found.get(&list);
            match candidate.read {
                Some(at) => self.keep(at, runtime),
                None => self.task(candidate.header, &candidate.kind, runtime),
            }
        }
        let mut others: Vec<(Address, Address)> = runtimes.others.iter().map(|(h, s)| (*h, *s)).collect();
        others.sort_unstable();
        for (header, shared) in others {
            if Some(shared) != own
                && let Some(kind) = self.headers.kind_of(header)
            {
                self.task(header, &kind, runtimes.found.get(&shared));
            }
        }
        for Candidate { header, kind, .. } in candidates.iter().filter(|c| c.list().is_none()) {
            if self.belongs(*header, kind) {
                let shared = self.process.memory.address(header.wrapping_add(kind.scheduler_at));
                if shared.is_some() && shared == own {
                    continue;
                }
                let runtime = shared.and_then(|shared| runtimes.found.get(&shared));
                self.task(*header, kind, runtime);
            }
        }
        self.drop_stale();
    }

    /// Whether a scan hit is a task at all.
    fn is_sound(&self, header: Address, kind: &Kind) -> bool {
        self.headers.stage(header, kind).is_some() && self.headers.id_of(header, kind).is_some()
    }

    /// Whether a scan hit that is on no list is a task and not a stale copy, of which freed memory is full.
    fn belongs(&self, header: Address, kind: &Kind) -> bool {
        let Some(state) = self.headers.state(header) else { return false };
        let complete = state.meaning() == TaskState::Complete;
        self.is_sound(header, kind)
            && match kind.scheduler {
                Scheduler::Blocking => !complete,
                // The output is stored before the state says complete (tokio's `runtime/task/harness.rs`).
                Scheduler::Shared(..) => {
                    complete
                        && self.headers.stage(header, kind) != Some(Stage::Future)
                        && self.headers.owner(header).is_some_and(|owner| owner != 0)
                }
                Scheduler::Other => false,
            }
    }
}
