//! A compiled type.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use super::handles::Handle;
use super::labels::Label;
use crate::debuginfo::types::{Discriminant, Source, TypeId};
use crate::tasks::leaves::{self, Leaf};
use crate::tasks::route::Route;

/// What a walk searches for. A layout contains only what leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Interest {
    /// Futures that are polled: the async stack.
    Futures,
    /// Handles of resources: what is owned.
    Handles,
}

/// The number of a layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct LayoutId(pub(super) u32);

/// What is inside a value of one type.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) id: LayoutId,
    pub(crate) of: TypeId,
    /// In bytes.
    pub(crate) size: u64,
    /// Of [`Interest::Futures`]: its name as a frame of the stack; `None` for wrappers that are not shown.
    pub(crate) frame: Option<Arc<str>>,
    /// Of [`Interest::Futures`]: it is a future, or a pointer to one, so that a task that polls it waits for something.
    pub(crate) is_future: bool,
    /// Of [`Interest::Handles`].
    pub(crate) completion: Completion,
    /// An optional future in it that is polled alone as long as it is there: its offset and layout.
    pub(super) alone: Option<(u64, LayoutId)>,
    pub(crate) body: Body,
}

/// How the parts of interest are stored.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing of interest.
    Nothing,
    /// Fields that are always present.
    Fields(Box<[Field]>),
    /// An enum, whose variants have different fields.
    Variants(Variants),
    /// An `async` function, block or closure.
    Coroutine(Coroutine),
    /// A thin pointer to a value that nothing else uses: `Box` (`owned`) or `&mut` (not owned).
    Pointer { target: TypeId, owned: bool },
    /// Of [`Interest::Handles`]: a raw pointer to a value in which a waker may be stored. Its target has another owner.
    Raw { target: TypeId },
    /// A pointer with a vtable.
    Dyn(Dyn),
    /// `Arc`, `Rc`, and their weak forms.
    Counted(Counted),
    /// Several values of one type.
    Collection(Collection),
    /// A part of a future or stream that several parts share, and the route to it.
    Shared { target: LayoutId, route: Route },
    /// The futures of a `tokio::select!`.
    Select(Select),
    /// A future that waits for a resource itself.
    Leaf(Box<Leaf>),
    /// A handle, with its own fields.
    Handle { handle: Handle, fields: Box<[Field]> },
    /// A future in which nothing is recognised.
    Opaque,
}

/// A part of a value.
#[derive(Debug)]
pub(crate) struct Field {
    /// Of [`Interest::Handles`].
    pub(crate) label: Label,
    pub(crate) offset: u64,
    pub(crate) layout: LayoutId,
}

/// An enum.
#[derive(Debug)]
pub(crate) struct Variants {
    /// `None` for an enum of one variant.
    pub(super) discriminant: Option<Discriminant>,
    pub(super) cases: Box<[Case]>,
    /// It is a branch of a `join!`: the future, or its output.
    pub(crate) is_branch: bool,
}

/// A variant of an enum.
#[derive(Debug)]
pub(crate) struct Case {
    pub(super) value: Option<u64>,
    /// Its name (`None`, `Done`) says that nothing is awaited any more.
    pub(crate) is_over: bool,
    /// Of a branch of a `join!`: its future has not completed.
    pub(crate) pending: bool,
    pub(crate) fields: Box<[Field]>,
}

/// An `async` function's states.
#[derive(Debug)]
pub(crate) struct Coroutine {
    pub(crate) at: Discriminant,
    /// The type's path.
    pub(crate) path: Arc<str>,
    pub(crate) states: Box<[State]>,
    /// Offset and type of the struct of its captures, which are its variables until it is first polled.
    pub(super) captures: Option<(u64, TypeId)>,
}

/// One state of a coroutine.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) value: u64,
    pub(crate) kind: StateKind,
    /// Offset and type of the struct with the state's variables.
    pub(super) offset: u64,
    pub(super) variables: TypeId,
    /// Where the coroutine is written: the line of the `.await`, or of its head before the first.
    pub(super) written: Option<Source>,
    pub(super) suspended: OnceLock<Suspended>,
    pub(super) inside: OnceLock<Variables>,
    /// Routes to the owners among its variables, by the path of their type.
    pub(super) owners: Mutex<Vec<KnownOwner>>,
}

/// The path of a type, and the owner of that type; `None` if the state has no such variable.
pub(super) type KnownOwner = (&'static str, Option<Arc<Owner>>);

/// What a state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateKind {
    /// Never polled: it has only its captures.
    Unresumed,
    /// At an `.await`.
    Suspended,
    /// Completed or panicked: it has no variables.
    Over,
    /// The debug information does not have its type.
    Unknown,
}

/// What a state awaits; compiled when a task is found in it.
#[derive(Debug)]
pub(crate) struct Suspended {
    /// Where the user wrote the `.await`.
    pub(crate) source: Option<Source>,
    /// `source` is the declaration of the function, because the `.await` is in a macro and the line of the macro's call
    /// is not known.
    pub(crate) at_declaration: bool,
    /// The future that it awaits, if something is recognised in it.
    pub(crate) fields: Box<[Field]>,
    /// The name of that future's type.
    pub(crate) awaitee: Option<Arc<str>>,
}

/// The variables of a coroutine in one state; compiled when a coroutine is found in that state.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// The label of the coroutine in this state.
    pub(crate) frame: Label,
    /// The future that it awaits.
    pub(crate) awaitee: Option<Field>,
    pub(crate) fields: Box<[Field]>,
    /// Variables that may have been moved: of several with the same name, not all are stored in this state.
    pub(crate) doubtful: Box<[Field]>,
    /// Possible places of variables whose place is not known.
    pub(crate) guesses: Box<[Field]>,
    /// Bytes that belong to no known variable, if there is a variable of which nothing but the name is known.
    pub(crate) gaps: Box<[Range<u64>]>,
    /// The name of that variable.
    pub(crate) hidden: Label,
    /// Offsets of drop flags: bytes that are 1 until a variable is moved. It is not known which variable each one is
    /// about.
    pub(crate) flags: Box<[u64]>,
}

/// A value that contains a resource, and that is, is part of, or is the target of a variable of a function.
#[derive(Debug)]
pub(crate) struct Owner {
    /// From the coroutine to the owner.
    pub(crate) route: Route,
    /// From the owner to the whole that the resource is part of, and its size.
    pub(crate) whole: Option<(Route, u64)>,
    /// The owner's layout, where it is a leaf itself.
    pub(crate) leaf: Option<LayoutId>,
    /// Numbers of the owner to read.
    pub(crate) details: leaves::Details,
}

/// A pointer with a vtable.
#[derive(Debug)]
pub(crate) struct Dyn {
    /// Its trait is `Future` or `Stream`, by its path.
    pub(crate) is_future: bool,
    /// It is `Arc`, `Rc` or `&`: others refer to the value, too, so it may not be what is waited for.
    pub(super) shared: bool,
    /// Of `Arc` and `Rc`: the value is stored behind its counters.
    pub(super) counted: bool,
    /// Offsets of the pointer, and of the address of the vtable.
    pub(crate) pointer: u64,
    pub(crate) vtable: u64,
}

/// A counted pointer.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) weak: bool,
    /// Offset of the pointer.
    pub(crate) pointer: u64,
    /// From the counters to the pointer's target: 0, or the offset of the value for what `Arc::into_raw` returns.
    pub(crate) back: u64,
    pub(crate) content: Content,
}

/// What follows the counters: `ArcInner { strong, weak, data }`, two words first.
#[derive(Debug)]
pub(crate) enum Content {
    /// A value at that offset from the counters.
    Value { of: TypeId, offset: u64 },
    /// A value whose vtable is the word after the pointer.
    Dyn,
    /// Several values; the word after the pointer is their number.
    Slice { of: TypeId, offset: u64, stride: u64 },
}

/// Several values of one type.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) element: LayoutId,
    /// From one value to the next, in bytes.
    pub(super) stride: u64,
    pub(crate) storage: Storage,
}

/// Where the values of a collection are. Numbers are offsets.
#[derive(Debug)]
pub(crate) enum Storage {
    /// That many, one after the other.
    Array { count: u64 },
    /// `Vec`, `Box<[T]>`; of a `Vec`, its capacity.
    Slice { pointer: u64, length: u64, capacity: Option<u64> },
    /// `SmallVec`: up to `room` of them are stored in the value itself; more are behind a pointer. `capacity` is the length
    /// while they are in the value.
    Small { room: u64, capacity: u64, inline: u64, pointer: u64, length: u64 },
    /// `VecDeque`.
    Ring { pointer: u64, capacity: u64, head: u64, length: u64 },
    /// hashbrown's `RawTable`: control bytes upwards from `ctrl`, values downwards from it.
    Table { ctrl: u64, mask: u64, items: u64 },
    /// Linked lists: routes to the heads, then offsets of the link and of the value in each node.
    Lists { heads: Box<[Route]>, next: u64, value: u64 },
    /// `BTreeMap`: values in every node, children in those above the leaves.
    Tree { root: Route, height: Route, values: u64, length: u64, edges: u64 },
    /// Messages in a channel of tokio's: blocks of slots from `head` on.
    Messages {
        head: Route,
        first: Route,
        end: Route,
        start: u64,
        ready: u64,
        next: u64,
        values: u64,
        slots: u64,
    },
}

/// The futures of a `tokio::select!`.
#[derive(Debug)]
pub(crate) struct Select {
    /// The route to the bits of the branches that are not polled, because their `if` was false or they have completed;
    /// and the size of these bits in bytes.
    pub(super) disabled: Route,
    pub(super) size: u64,
    /// The route to the tuple of all futures.
    pub(crate) tuple: Route,
    /// The number of each branch, its offset in the tuple, and its layout.
    pub(crate) branches: Box<[(u32, u64, LayoutId)]>,
}

/// When a polled future completes. A `join!` is split into its branches only if nothing else can complete it, and a
/// branch is stuck only if everything that could complete it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// When the future that it polls does: `async` functions, pointers, wrappers.
    With,
    /// When all futures that it polls have: `Join`, `JoinAll`.
    WithAll,
    /// A closure: in a `tokio::join!`, when all futures that it polls have; elsewhere that is not known.
    Closure,
    /// When any of the futures that it polls does, all of which are known: futures of tokio, a `select!`.
    WithAny,
    /// Not known.
    Unknown,
}

/// The source of tokio's `join!`, where its `.await` is.
const JOIN: &str = "src/macros/join.rs";

impl Layout {
    pub(super) fn new(of: TypeId, size: u64) -> Self {
        Self {
            id: LayoutId(0),
            of,
            size,
            frame: None,
            is_future: false,
            completion: Completion::Unknown,
            alone: None,
            body: Body::Nothing,
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self.body, Body::Nothing)
    }

    /// Whether nothing is known about its content.
    pub(crate) fn is_unrecognised(&self) -> bool {
        matches!(self.body, Body::Nothing | Body::Opaque)
    }
}

impl Coroutine {
    /// Whether it is an `async fn`, which moves its arguments into variables when it is first polled. The moved
    /// arguments are listed in every state, although they are not alive (rustc 1.88 to 1.95).
    pub(super) fn is_function(&self) -> bool {
        crate::debuginfo::types::names::last_segment(&self.path).starts_with("{async_fn_env#")
    }
}

impl State {
    pub(crate) fn is_suspended(&self) -> bool {
        self.kind == StateKind::Suspended
    }

    /// Whether it is at the `.await` of a `tokio::join!`.
    pub(crate) fn joins(&self) -> bool {
        self.written.as_ref().is_some_and(|source| source.file.ends_with(JOIN))
    }
}
