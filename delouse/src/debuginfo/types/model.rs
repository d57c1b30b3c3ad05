//! What a type is, as far as memory can be read with it.

use std::sync::Arc;

/// Names one type: the unit and the offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TypeId {
    pub(crate) unit: u32,
    pub(crate) offset: u32,
}

/// A type.
#[derive(Debug, Clone)]
pub(crate) struct Type {
    /// Its path with its parameters, as rustc writes it: `core::option::Option<u8>`.
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// Size in bytes; 8 for pointers, 0 where DWARF does not say.
    pub(crate) size: u64,
    /// Alignment in bytes, at least 1.
    pub(crate) align: u64,
    /// Fields that are there in every variant.
    pub(crate) members: Vec<Member>,
    /// Generic parameters.
    pub(crate) parameters: Vec<(String, TypeId)>,
}

/// The shapes that types take.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A struct, tuple, closure, union or wide pointer: members only.
    Struct,
    /// An enum with data, or a coroutine.
    Variants(Variants),
    /// A thin pointer, reference or box.
    Pointer(Option<TypeId>),
    /// `[T; n]`.
    Array { element: TypeId, count: u64 },
    /// Integers, floats, C-like enums, functions: nothing inside.
    Scalar,
}

/// The variants of an enum, and how to tell which is there.
#[derive(Debug, Clone)]
pub(crate) struct Variants {
    /// Where the discriminant is; `None` for an enum of one variant.
    pub(crate) discriminant: Option<Discriminant>,
    /// Whether it is the state of an `async` function, block or closure.
    pub(crate) coroutine: bool,
    pub(crate) list: Vec<Variant>,
}

/// Where a discriminant lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Discriminant {
    pub(crate) offset: u64,
    /// Size in bytes, at most 8 (16-byte niches are not read).
    pub(crate) size: u64,
}

/// One variant.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    /// The discriminant's value; `None` for the one that takes all other values (a niche's dataful one).
    pub(crate) value: Option<u64>,
    /// The member that holds the variant's struct. Of a coroutine's it also tells the source line.
    pub(crate) member: Member,
    /// For the states of coroutines: where the `.await` stands.
    pub(crate) source: Option<Source>,
}

/// A field.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Offset in bytes.
    pub(crate) offset: u64,
    pub(crate) of: TypeId,
}

/// A line of source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    /// The file, absolute where DWARF tells.
    pub(crate) file: Arc<str>,
    /// The file as people know it, spelled as on the stacks of threads: see [`shorten`](crate::debuginfo::paths::shorten).
    pub(crate) shown: Arc<str>,
    pub(crate) line: u32,
}

impl Type {
    /// The member called `name`.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The generic parameter called `name`.
    pub(crate) fn parameter(&self, name: &str) -> Option<TypeId> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, id)| *id)
    }

    /// The path without generic parameters.
    pub(crate) fn path(&self) -> &str {
        super::names::without_parameters(&self.name)
    }
}
