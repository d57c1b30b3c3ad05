//! How to walk a future: each type is compiled once into offsets and steps, and every task of that type is
//! walked with them, without looking at a name again.

mod compile;
mod containers;
mod wrappers;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use rustc_hash::FxHashMap;

pub(crate) use compile::is_dyn_future;
pub(super) use containers::Container;
pub(crate) use containers::futures_of_select;

use super::leaves::{self, Leaf};
use super::process::{Process, Program};
use super::route::Route;
use crate::debuginfo::types::{Discriminant, Source, TypeId};

/// Types inside types; more than that is no program's.
const MAX_NESTING: usize = 256;

/// A compiled type.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its number, for comparing stacks.
    pub(super) id: u32,
    pub(super) of: TypeId,
    /// Its name as a frame of the stack; `None` for wrappers that nobody wants to see.
    pub(super) frame: Option<Rc<str>>,
    pub(super) body: Body,
}

/// What there is inside.
#[derive(Debug)]
pub(super) enum Body {
    /// No future.
    Nothing,
    /// All of these, in any case.
    Steps(Box<[Step]>),
    /// One case of an enum.
    Variants { at: Option<Discriminant>, cases: Box<[Case]> },
    /// An `async` function, block or closure.
    Coroutine(Coroutine),
    /// A future that waits for a resource itself.
    Leaf(Leaf),
}

/// A variant of an enum.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) value: Option<u64>,
    pub(super) steps: Box<[Step]>,
}

/// An `async` function's states.
#[derive(Debug)]
pub(super) struct Coroutine {
    pub(super) at: Discriminant,
    /// The type's path.
    pub(super) path: Rc<str>,
    pub(super) states: Box<[State]>,
}

/// One state of a coroutine.
#[derive(Debug)]
pub(super) struct State {
    pub(super) value: u64,
    /// Where the struct with the state's variables lies, and its type.
    pub(super) offset: u64,
    pub(super) variables: TypeId,
    /// Where the coroutine is written: the line of the `.await`, or of its head before the first.
    written: Option<Source>,
    /// Whether it stands at an `.await`.
    pub(super) suspended: bool,
    details: OnceCell<Suspended>,
    /// Ways to what its variables own, by the type's path.
    owners: RefCell<Vec<KnownOwner>>,
}

/// Something that a variable of a function is, has or points to, and that a resource is part of.
#[derive(Debug)]
pub(super) struct Owner {
    /// From the coroutine to the owner.
    pub(super) route: Route,
    /// From the owner to the whole that the resource lies in, and its size.
    pub(super) whole: Option<(Route, u64)>,
    /// The owner's plan, where it is a leaf itself.
    pub(super) leaf: Option<Rc<Plan>>,
    /// Numbers of the owner to read.
    pub(super) details: leaves::Details,
}

/// What a state waits for; compiled when a task is found in it.
#[derive(Debug)]
pub(super) struct Suspended {
    /// Where the user wrote the `.await`.
    pub(super) source: Option<Source>,
    /// That is where the function is declared: the `.await` is in a macro, the line of whose call is not known.
    pub(super) at_declaration: bool,
    pub(super) steps: Box<[Step]>,
    /// The name of the type that it waits for.
    pub(super) awaitee: Option<Rc<str>>,
}

/// From one future to the next.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) offset: u64,
    pub(super) via: Via,
}

/// How to get there.
#[derive(Debug)]
pub(super) enum Via {
    /// It lies there.
    Inline(Rc<Plan>),
    /// A thin pointer to it lies there.
    Pointer(TypeId),
    /// A pointer and a vtable lie there.
    Dyn,
    /// Several lie there, or are led to from there.
    Container(Rc<Container>),
}

/// By the way that leads to it; `None` where it leads nowhere.
type KnownOwner = (&'static str, Option<Rc<Owner>>);

/// All plans of one program: they hold for every capture of it.
pub(super) struct Plans<'p, 'i> {
    pub(super) program: Program<'p, 'i>,
    /// `None` while a type is being compiled.
    known: RefCell<FxHashMap<TypeId, Option<Rc<Plan>>>>,
    dyns: RefCell<FxHashMap<u64, Option<Rc<Plan>>>>,
    /// What leaves have in common.
    pub(super) learned: leaves::Learned,
    next: Cell<u32>,
    /// How many types are being compiled, each inside the one before.
    depth: Cell<usize>,
}

impl<'p, 'i> Plans<'p, 'i> {
    pub(super) fn new(program: Program<'p, 'i>) -> Self {
        Self {
            program,
            known: RefCell::default(),
            dyns: RefCell::default(),
            learned: leaves::Learned::default(),
            next: Cell::default(),
            depth: Cell::default(),
        }
    }

    /// The plan for a type. While it is being compiled, a type that contains itself has none.
    pub(super) fn plan(&self, id: TypeId) -> Option<Rc<Plan>> {
        if let Some(known) = self.known.borrow().get(&id) {
            return known.clone();
        }
        if self.depth.get() >= MAX_NESTING {
            return None;
        }
        self.known.borrow_mut().insert(id, None);
        self.depth.set(self.depth.get() + 1);
        let plan = Rc::new(self.compile(id));
        self.depth.set(self.depth.get() - 1);
        self.known.borrow_mut().insert(id, Some(plan.clone()));
        Some(plan)
    }

    /// The plan for what the `dyn` pointer with that vtable points to.
    pub(super) fn plan_of_vtable(&self, process: &Process<'_, '_>, vtable: u64) -> Option<Rc<Plan>> {
        if let Some(known) = self.dyns.borrow().get(&vtable) {
            return known.clone();
        }
        let plan = process.dyn_type(vtable).and_then(|id| self.plan(id));
        self.dyns.borrow_mut().insert(vtable, plan.clone());
        plan
    }

    fn next_id(&self) -> u32 {
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        id
    }
}

impl Plan {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.body, Body::Nothing)
    }
}
