//! What is inside a value of a type: which parts of it lead to something of interest, and at which offsets.
//!
//! Each type is compiled once for each [`Interest`], and stays known for all captures of the program.
//! [`walk`](super::walk) uses layouts to read async stacks, `waits::ownership` to find what is owned.

mod alone;
mod arena;
mod compile;
mod compile_collections;
mod completion;
mod dynamic;
pub(crate) mod handles;
mod known_types;
mod labels;
mod model;
mod read;
mod store;
mod suspended;
mod variables;
mod wakers;

pub(crate) use alone::Alone;
pub(super) use compile::is_owned;
pub(crate) use labels::{Label, Labels, Meaning};
pub(crate) use model::{
    Body, Case, Collection, Completion, Content, Coroutine, Counted, Dyn, Field, Interest, Layout, LayoutId,
    StateKind, Storage, Suspended, Variables,
};
pub(crate) use read::Visited;
pub(crate) use store::Layouts;
