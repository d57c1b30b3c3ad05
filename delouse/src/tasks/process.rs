//! A snapshot with the types of its executable.

use std::ops::Deref;
use std::sync::Arc;

use super::memory::Memory;
use crate::debuginfo::address::{FileAddress, LoadBias};
use crate::debuginfo::types::{Function, Shape, Type, TypeId, Types};
use crate::snapshot::{Address, Snapshot};

/// The executable's types at the place where it was loaded: the same in every snapshot of a process.
#[derive(Clone)]
pub(crate) struct Program<'i> {
    pub(crate) types: Arc<Types<'i>>,
    pub(crate) bias: LoadBias,
}

/// The process that everything in `tasks` reads from.
pub(crate) struct Process<'p, 'i> {
    pub(crate) memory: Memory<'p>,
    program: Program<'i>,
}

/// Functions that need only types take a [`Program`], which a process contains.
impl<'p, 'i> Deref for Process<'p, 'i> {
    type Target = Program<'i>;

    fn deref(&self) -> &Self::Target {
        &self.program
    }
}

impl Program<'_> {
    /// The function at an address of the process.
    pub(crate) fn function(&self, address: Address) -> Option<Function> {
        self.types.function(self.bias.file_address(address))
    }

    pub(crate) fn ty(&self, id: TypeId) -> Option<Arc<Type>> {
        self.types.get(id)
    }

    /// `F` for the address of `<F as Future>::poll`.
    pub(crate) fn polled(&self, poll: Address) -> Option<TypeId> {
        self.pinned(self.function(poll)?.first_argument?)
    }

    /// `T` of `Pin<&mut T>`, `&mut T` or `Box<T>`.
    fn pinned(&self, id: TypeId) -> Option<TypeId> {
        let mut id = id;
        for _ in 0..4 {
            let ty = self.ty(id)?;
            match ty.shape {
                Shape::Pointer(target) => return target,
                Shape::Struct => id = ty.members.first()?.of,
                _ => return None,
            }
        }
        None
    }
}

impl<'p, 'i> Process<'p, 'i> {
    pub(crate) fn new(snapshot: &'p dyn Snapshot, program: Program<'i>) -> Self {
        Self { memory: Memory::new(snapshot), program }
    }

    /// The type that the vtable at `vtable` belongs to, by its description, and the size of the vtable.
    pub(crate) fn vtable(&self, vtable: Address) -> Option<(TypeId, u64)> {
        let entry = |n: u64| {
            let function = self.memory.address(vtable.checked_add(8 * n)?)?;
            Some(self.bias.file_address(function))
        };
        // Drop, size, alignment, and functions.
        let entries: Vec<FileAddress> = [3, 0, 4, 5, 6].into_iter().filter_map(entry).collect();
        self.types.vtable(self.bias.file_address(vtable), &entries)
    }
}
