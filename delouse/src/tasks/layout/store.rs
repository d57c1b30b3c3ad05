//! All layouts of a program.

use std::sync::Mutex;

use rustc_hash::FxHashMap;

use super::arena::Arena;
use super::labels::Labels;
use super::model::{Body, Interest, Layout, LayoutId};
use crate::debuginfo::types::TypeId;
use crate::host::lock::lock;
use crate::snapshot::Address;
use crate::tasks::leaves;
use crate::tasks::process::Program;

/// The most types that may own handles: to compile more would take too long.
const MAX_TYPES: usize = 100_000;
/// Types of guards that unknown variables may have.
const MAX_GUARDS: usize = 64;

/// The address of a vtable, whether the pointer is shared, and whether its trait is `Future` or `Stream`; for each
/// interest.
pub(super) type DynKey = (Interest, Address, bool, bool);

/// All layouts of one program: they are valid for every capture of it.
pub(crate) struct Layouts<'i> {
    pub(crate) program: Program<'i>,
    pub(crate) labels: Labels,
    /// What was learned once for all leaves.
    pub(in crate::tasks) learned: leaves::Learned,
    layouts: Arena<Layout>,
    of_types: Mutex<FxHashMap<(Interest, TypeId), LayoutId>>,
    pub(super) of_vtables: Mutex<FxHashMap<DynKey, Option<LayoutId>>>,
    /// Layouts of futures in which nothing was recognised.
    unrecognised: Mutex<FxHashMap<TypeId, LayoutId>>,
    guards: Mutex<Vec<LayoutId>>,
    /// Whether a waker may be stored in values of a type, or behind their pointers.
    pub(super) with_wakers: Mutex<FxHashMap<TypeId, bool>>,
    /// One thread compiles at a time: a type that is being compiled is not known yet.
    pub(super) compiling: Mutex<()>,
}

impl<'i> Layouts<'i> {
    pub(crate) fn new(program: Program<'i>) -> Self {
        Self {
            program,
            labels: Labels::default(),
            learned: leaves::Learned::default(),
            layouts: Arena::default(),
            of_types: Mutex::default(),
            of_vtables: Mutex::default(),
            unrecognised: Mutex::default(),
            guards: Mutex::default(),
            with_wakers: Mutex::default(),
            compiling: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, id: LayoutId) -> Option<&Layout> {
        self.layouts.get(id.0)
    }

    /// The layout of a type that was compiled before.
    pub(super) fn known(&self, interest: Interest, of: TypeId) -> Option<&Layout> {
        let id = lock(&self.of_types).get(&(interest, of)).copied()?;
        self.get(id)
    }

    /// Whether no more types are compiled.
    pub(super) fn is_full(&self, interest: Interest) -> bool {
        interest == Interest::Handles && lock(&self.of_types).len() >= MAX_TYPES
    }

    /// Adds a layout, and returns it with its number.
    pub(super) fn add(&self, layout: Layout) -> Option<&Layout> {
        self.layouts.push(|number| Layout { id: LayoutId(number), ..layout })
    }

    /// From now on, this is the layout of its type.
    pub(super) fn remember(&self, interest: Interest, layout: &Layout) {
        lock(&self.of_types).insert((interest, layout.of), layout.id);
        if let Body::Handle { handle, .. } = &layout.body
            && handle.is_guard()
        {
            lock(&self.guards).push(layout.id);
        }
    }

    /// These types are compiled again when they are next needed.
    pub(super) fn forget(&self, interest: Interest, types: &[TypeId]) {
        let mut known = lock(&self.of_types);
        for of in types {
            known.remove(&(interest, *of));
        }
    }

    /// The layout of a future of the same type in which nothing was recognised; its frame is `name`.
    pub(super) fn unrecognised_as(&self, layout: &Layout, name: impl FnOnce() -> String) -> Option<&Layout> {
        let mut known = lock(&self.unrecognised);
        if let Some(id) = known.get(&layout.of) {
            return self.get(*id);
        }
        let opaque = Layout {
            frame: Some(name().into()),
            is_future: true,
            body: Body::Opaque,
            ..Layout::new(layout.of, layout.size)
        };
        let added = self.add(opaque)?;
        known.insert(layout.of, added.id);
        Some(added)
    }

    /// The guards of locks among the types that were compiled.
    pub(crate) fn guards(&self) -> Vec<&Layout> {
        lock(&self.guards).iter().take(MAX_GUARDS).filter_map(|id| self.get(*id)).collect()
    }
}
