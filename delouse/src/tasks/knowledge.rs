//! What stays the same from one capture of a program to the next: only the first one pays for it.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::contexts;
use super::facts::{self, Notes};
use super::header::Kinds;
use super::plan::Plans;
use super::process::{Process, Program};
use super::scan;
use super::stack::KnownStacks;
use super::walk::Trails;
use crate::debuginfo::modules::Modules;
use crate::debuginfo::types::Types;
use crate::snapshot::Snapshot;

/// Everything that was learned of a program from its types and constants.
pub(crate) struct Knowledge<'p, 'i> {
    pub(super) program: Program<'p, 'i>,
    /// `None`: no type of a task is known.
    pub(super) kinds: Option<Kinds>,
    pub(super) plans: Plans<'p, 'i>,
    pub(super) stacks: RefCell<KnownStacks>,
    pub(super) trails: RefCell<Trails>,
    pub(super) contexts: OnceCell<Option<contexts::Routes>>,
    /// What could not be learned, for every answer to say.
    pub(super) notes: Notes,
    /// How many tasks to make room for: about as many as there were the last time.
    pub(super) tasks: Cell<usize>,
    modules: RefCell<Option<Arc<Modules>>>,
    polls: Vec<u64>,
    vtables: OnceCell<FxHashSet<u64>>,
}

impl<'p, 'i> Knowledge<'p, 'i> {
    /// Of a program whose executable has `types` and is loaded at `bias`.
    pub(crate) fn new(types: &'p Types<'i>, bias: u64) -> Self {
        let program = Program { types, bias };
        let mut notes = Notes::default();
        let polls = scan::polls(types);
        let kinds = Kinds::learn(&program, &polls, &mut notes);
        if kinds.is_none() {
            match types.missing() {
                Some(missing) => notes.add(format!("no types were found: {missing}")),
                None => notes.missing(&facts::POLL),
            }
        }
        Self {
            program,
            kinds,
            plans: Plans::new(program),
            stacks: RefCell::default(),
            trails: RefCell::default(),
            contexts: OnceCell::new(),
            notes,
            tasks: Cell::default(),
            modules: RefCell::default(),
            polls,
            vtables: OnceCell::new(),
        }
    }

    /// What was added to the addresses in the executable when it was loaded.
    pub(crate) fn bias(&self) -> u64 {
        self.program.bias
    }

    /// The executable and the libraries that are loaded.
    pub(super) fn modules(&self, snapshot: &dyn Snapshot) -> Arc<Modules> {
        let mut known = self.modules.borrow_mut();
        let modules = Modules::of(snapshot, known.as_ref());
        *known = Some(Arc::clone(&modules));
        modules
    }

    /// The addresses of all task vtables.
    pub(super) fn vtables(&self, process: &Process<'_, '_>) -> &FxHashSet<u64> {
        self.vtables.get_or_init(|| scan::vtables(process, &self.polls))
    }
}
