//! What is the same in all captures of a program, so that only the first one must find it out.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::contexts;
use super::facts::{self, Notes};
use super::header::Kinds;
use super::layout::Layouts;
use super::process::{Process, Program};
use super::scan;
use super::stack::KnownStacks;
use super::walk::WalkCache;
use crate::debuginfo::address::{FileAddress, LoadBias};
use crate::debuginfo::modules::Modules;
use crate::debuginfo::types::Types;
use crate::snapshot::{Address, Snapshot};

/// Everything that was learned of a program from its types and constants.
pub(crate) struct Knowledge<'i> {
    pub(super) program: Program<'i>,
    /// `None`: no type of a task is known.
    pub(super) kinds: Option<Kinds>,
    pub(super) layouts: Layouts<'i>,
    pub(super) stacks: RefCell<KnownStacks>,
    pub(super) walks: RefCell<WalkCache>,
    pub(super) contexts: OnceCell<Option<contexts::Routes>>,
    /// What could not be learned: these notes are part of every answer.
    pub(super) notes: Notes,
    /// How many tasks to make room for: about as many as there were the last time.
    pub(super) tasks: Cell<usize>,
    modules: RefCell<Option<Arc<Modules>>>,
    polls: Vec<FileAddress>,
    vtables: OnceCell<FxHashSet<Address>>,
}

impl<'i> Knowledge<'i> {
    /// For a program whose executable has `types` and is loaded at `bias`.
    pub(crate) fn new(types: Arc<Types<'i>>, bias: LoadBias) -> Self {
        let program = Program { types: Arc::clone(&types), bias };
        let mut notes = Notes::default();
        let polls = scan::polls(&types);
        let kinds = Kinds::learn(&program, &polls, &mut notes);
        if kinds.is_none() {
            match types.missing() {
                Some(missing) => notes.add(format!("no types were found: {missing}")),
                None => notes.missing(&facts::POLL),
            }
        }
        Self {
            kinds,
            layouts: Layouts::new(program.clone()),
            program,
            stacks: RefCell::default(),
            walks: RefCell::default(),
            contexts: OnceCell::new(),
            notes,
            tasks: Cell::default(),
            modules: RefCell::default(),
            polls,
            vtables: OnceCell::new(),
        }
    }

    /// The bias of the executable.
    pub(crate) fn bias(&self) -> LoadBias {
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
    pub(super) fn vtables(&self, process: &Process<'_, '_>) -> &FxHashSet<Address> {
        self.vtables.get_or_init(|| scan::vtables(process, &self.polls))
    }
}
