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
    /// first poll. Such a function is not marked as suspended anywhere, but what its branches have is stored already.
    pub(in crate::waits::ownership) fn own_guards(
        &mut self,
        number: u32,
        (of, at): (TypeId, Address),
        lock: Address,
    ) {
        self.add_guards(number, lock, |walker| {
            walker.first_polls = true;
            walker.task(number, of, at, true);
        });
    }

    /// Adds the guards of the lock that the thread of a task waits for that are among the variables on its stack. Some may
    /// have been moved, so that nothing else in them counts.
    pub(in crate::waits::ownership) fn own_guards_on_stack(
        &mut self,
        number: u32,
        variables: &[StackVariable],
        lock: Address,
    ) {
        self.add_guards(number, lock, |walker| walker.variables(number, variables));
    }

    /// Adds the guards of a lock that `walk` finds in a task, if none is known yet.
    fn add_guards(&mut self, number: u32, lock: Address, walk: impl FnOnce(&mut Walker<'_, 'p, 'i>)) {
        let is_guard = |holding: &Holding| {
            holding.resource == ResourceKey::Value(lock)
                && handles::at(holding.handle).is_some_and(|fact| fact.roles.has(Roles::THREAD_GUARD))
        };
        let is_own = |holding: &Holding| holding.owner == Node::Task(number) && is_guard(holding);
        if self.found.holdings.iter().any(is_own) {
            return;
        }
        let Found { holdings, references, .. } =
            self.beside(&FxHashSet::from_iter([lock.into()]), |walker| {
                walk(walker);
                walker.objects();
            });
        // A guard that is shared, such as that of dashmap's iterators, is had by what refers to it.
        let reference = |holding: &Holding| {
            let owns = |of: &&Reference| {
                of.owner == Node::Task(number) && Node::Object(of.object) == holding.owner && !of.weak
            };
            references.iter().find(owns)
        };
        self.found.holdings.extend(holdings.into_iter().filter(is_guard).filter_map(|holding| {
            if is_own(&holding) {
                return Some(holding);
            }
            let Reference { owner, path, unpolled, .. } = *reference(&holding)?;
            Some(Holding { owner, path, unpolled, uncertain: true, ..holding })
        }));
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
