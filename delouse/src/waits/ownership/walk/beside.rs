//! What tasks have that is not stored in their futures: on the stacks of their threads, and in functions in their first poll.

use rustc_hash::FxHashSet;

use super::{Found, Holding, Node, Reference, Walker};
use crate::debuginfo::types::TypeId;
use crate::snapshot::{Address, Hidden};
use crate::tasks::StackVariable;
use crate::tasks::layout::Interest;
use crate::tasks::layout::handles::{self, Roles};
use crate::waits::wait::ResourceKey;

impl<'p, 'i> Walker<'_, 'p, 'i> {
    /// Adds the guards of the lock that the thread of a task waits for that are in futures inside of functions in their
    /// first poll, if none is known yet. Such a function is not marked as suspended anywhere, but what its branches have is
    /// stored already.
    pub(in crate::waits::ownership) fn own_guards(
        &mut self,
        number: u32,
        (of, at): (TypeId, Address),
        lock: Address,
    ) {
        if has_guard(&self.found, number, lock) {
            return;
        }
        let found = self.beside(&FxHashSet::from_iter([lock.into()]), |walker| {
            walker.first_polls = true;
            walker.task(number, of, at, true);
            walker.objects();
        });
        let shared = shared_guards(&found, number, lock);
        let is_own = |holding: &Holding| holding.owner == Node::Task(number) && is_guard(holding, lock);
        self.found.holdings.extend(found.holdings.into_iter().filter(is_own).chain(shared));
    }

    /// Adds the guards of the lock that the thread of a task waits for that the task shares, if it has none of its own. Only
    /// after shared objects were walked.
    pub(in crate::waits::ownership) fn own_shared_guards(&mut self, number: u32, lock: Address) {
        if !has_guard(&self.found, number, lock) {
            let shared = shared_guards(&self.found, number, lock);
            self.found.holdings.extend(shared);
        }
    }

    /// What `walk` finds with a walker of its own, which shares the paths.
    fn beside(&mut self, wanted: &FxHashSet<Hidden>, walk: impl FnOnce(&mut Walker<'_, 'p, 'i>)) -> Found {
        let mut walker = Walker::new(self.process, self.layouts, wanted);
        walker.paths = std::mem::take(&mut self.paths);
        walk(&mut walker);
        self.paths = walker.paths;
        walker.found
    }

    /// Adds what is in the variables around the call that blocks the thread of a task, except for what was found in that task
    /// already: `before` is how much had been found before it.
    pub(in crate::waits::ownership) fn variables_around(
        &mut self,
        number: u32,
        variables: &[StackVariable],
        before: (usize, usize),
    ) {
        if variables.is_empty() {
            return;
        }
        let (holdings, references) = self.found.counts();
        let of_task = self.found.holdings.iter().skip(before.0).map(|holding| holding.place);
        let known: FxHashSet<Address> =
            of_task.chain(self.found.references.iter().skip(before.1).map(|of| of.place)).collect();
        self.variables(number, variables);
        let new = self.found.holdings.split_off(holdings);
        self.found.holdings.extend(new.into_iter().filter(|holding| !known.contains(&holding.place)));
        let new = self.found.references.split_off(references);
        self.found.references.extend(new.into_iter().filter(|reference| !known.contains(&reference.place)));
    }

    /// Walks variables on the stack of the thread of a task. Some may have been moved.
    fn variables(&mut self, number: u32, variables: &[StackVariable]) {
        self.running = true;
        for variable in variables {
            let layout = self.layouts.of(Interest::Handles, variable.of);
            if let Some(layout) = layout.filter(|layout| !layout.is_nothing()) {
                let label = self.layouts.labels.name(&variable.name);
                self.labelled_root(Node::Task(number), label, layout, variable.at);
            }
        }
        self.running = false;
    }
}

fn is_guard(holding: &Holding, lock: Address) -> bool {
    holding.resource == ResourceKey::Value(lock)
        && handles::at(holding.handle).is_some_and(|fact| fact.roles.has(Roles::THREAD_GUARD))
}

/// Whether a guard of a lock was found that is a task's own.
fn has_guard(found: &Found, number: u32, lock: Address) -> bool {
    let mut of_task = found.holdings.iter().filter(|holding| holding.owner == Node::Task(number));
    of_task.any(|holding| is_guard(holding, lock))
}

/// The guards of a lock that a task shares, such as those of dashmap's iterators, as holdings of the task.
fn shared_guards(found: &Found, number: u32, lock: Address) -> Vec<Holding> {
    let reference = |holding: &Holding| {
        let owns = |of: &&Reference| {
            of.owner == Node::Task(number) && Node::Object(of.object) == holding.owner && !of.weak
        };
        found.references.iter().find(owns)
    };
    let guards = found.holdings.iter().filter(|holding| is_guard(holding, lock));
    guards
        .filter_map(|holding| {
            let Reference { owner, path, unpolled, .. } = *reference(holding)?;
            Some(Holding { owner, path, unpolled, uncertain: true, ..holding.clone() })
        })
        .collect()
}
