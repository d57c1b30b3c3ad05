//! How to walk a future: each type is compiled once into offsets and steps, and every task of that type is
//! walked with them, without looking at a name again.

mod compile;
mod containers;
mod dynamic;
mod wrappers;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use rustc_hash::FxHashMap;

pub(super) use containers::Container;
pub(crate) use containers::futures_of_select;
pub(super) use dynamic::Dyn;
pub(crate) use dynamic::is_dyn_future;

use super::leaves::{self, Leaf};
use super::process::Program;
use super::route::Route;
use crate::debuginfo::types::{Discriminant, Shape, Source, Type, TypeId};

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
    /// It is a future, or a pointer to one: where it is polled, it waits for something.
    pub(super) is_future: bool,
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
    /// Something that is polled, in which nothing is recognised.
    Opaque,
}

/// A variant of an enum.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) value: Option<u64>,
    /// It says that there is nothing to wait for any more: `None`, `Done`.
    pub(super) is_over: bool,
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
    /// One of several futures side by side: each waits for something of its own.
    pub(super) is_branch: bool,
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
    Dyn(Rc<Dyn>),
    /// Several lie there, or are led to from there.
    Container(Rc<Container>),
}

/// By the way that leads to it; `None` where it leads nowhere.
type KnownOwner = (&'static str, Option<Rc<Owner>>);

/// The address of a vtable, whether the pointer is shared, and whether its trait is `Future` or `Stream`.
type DynKey = (u64, bool, bool);

/// All plans of one program: they hold for every capture of it.
pub(super) struct Plans<'p, 'i> {
    pub(super) program: Program<'p, 'i>,
    /// `None` while a type is being compiled.
    known: RefCell<FxHashMap<TypeId, Option<Rc<Plan>>>>,
    dyns: RefCell<FxHashMap<DynKey, Option<Rc<Plan>>>>,
    /// Of futures in which nothing was recognised.
    opaque: RefCell<FxHashMap<TypeId, Rc<Plan>>>,
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
            opaque: RefCell::default(),
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

    /// The plan for something that is a future: where nothing is recognised in it, that is what it says.
    pub(super) fn future(&self, id: TypeId) -> Option<Rc<Plan>> {
        let plan = self.plan(id)?;
        if !plan.is_nothing() || wrappers::never_waits(self.program.ty(id)?.path()) {
            return Some(plan);
        }
        let plan = self.unrecognised(&plan);
        self.known.borrow_mut().insert(id, Some(plan.clone()));
        Some(plan)
    }

    /// The plan for a future of the same type in which nothing was recognised.
    pub(super) fn unrecognised(&self, plan: &Plan) -> Rc<Plan> {
        let make = || {
            let name = self.pointee(plan.of).map(|ty| ty.name.clone()).unwrap_or_default();
            Rc::new(self.opaque(plan.of, &name))
        };
        self.opaque.borrow_mut().entry(plan.of).or_insert_with(make).clone()
    }

    /// The type that a pointer leads to, or the type itself.
    fn pointee(&self, mut of: TypeId) -> Option<Rc<Type>> {
        for _ in 0..8 {
            let ty = self.program.ty(of)?;
            of = match &ty.shape {
                Shape::Pointer(Some(target)) => *target,
                Shape::Struct if ty.path() == "core::pin::Pin" => ty.members.first()?.of,
                _ => return Some(ty),
            };
        }
        self.program.ty(of)
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

    /// Whether nothing is known of what is inside.
    pub(super) fn is_unrecognised(&self) -> bool {
        matches!(self.body, Body::Nothing | Body::Opaque)
    }
}
