//! A snapshot with the types of its executable: addresses of the one, offsets of the other.

use std::ops::Deref;
use std::rc::Rc;

use super::memory::Memory;
use super::vtable::Methods;
use crate::debuginfo::types::{Function, Shape, Type, TypeId, Types};
use crate::snapshot::Snapshot;

/// The executable's types at the place where it was loaded: the same in every snapshot of a process.
#[derive(Clone, Copy)]
pub(crate) struct Program<'p, 'i> {
    pub(crate) types: &'p Types<'i>,
    /// What was added to the file's addresses when it was loaded.
    pub(crate) bias: u64,
}

/// What everything in `tasks` reads from.
pub(crate) struct Process<'p, 'i> {
    pub(crate) memory: Memory<'p>,
    program: Program<'p, 'i>,
}

/// What needs types only takes a [`Program`]; a process has one.
impl<'p, 'i> Deref for Process<'p, 'i> {
    type Target = Program<'p, 'i>;

    fn deref(&self) -> &Self::Target {
        &self.program
    }
}

impl Program<'_, '_> {
    /// The function at an address of the process.
    pub(crate) fn function(&self, address: u64) -> Option<Function> {
        self.types.function(address.wrapping_sub(self.bias))
    }

    pub(crate) fn ty(&self, id: TypeId) -> Option<Rc<Type>> {
        self.types.get(id)
    }

    /// `F`, of the address of `<F as Future>::poll`.
    pub(crate) fn polled(&self, poll: u64) -> Option<TypeId> {
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
    pub(crate) fn new(snapshot: &'p dyn Snapshot, program: Program<'p, 'i>) -> Self {
        Self { memory: Memory::new(snapshot), program }
    }

    /// The type that the vtable at `vtable` belongs to, by its description, and the size of the vtable.
    pub(crate) fn vtable(&self, vtable: u64) -> Option<(TypeId, u64)> {
        let word = |n: u64| Some(self.memory.word(vtable.checked_add(8 * n)?)?.wrapping_sub(self.bias));
        // Drop, size, alignment, and functions.
        let entries: Vec<u64> = [3, 0, 4, 5, 6].into_iter().filter_map(word).collect();
        self.types.vtable(vtable.wrapping_sub(self.bias), &entries)
    }

    /// The concrete type behind a `dyn` pointer, by its vtable.
    ///
    /// rustc lays a vtable out as drop, size, align, then the methods, and describes it in a variable
    /// `<T as Trait>::{vtable}`; methods take `Pin<&mut T>`, `&mut T` or the like; and drop is
    /// `drop_in_place::<T>`. Identical functions may be folded, so the vtable's own description comes first.
    pub(crate) fn dyn_type(&self, vtable: u64) -> Option<TypeId> {
        let drop = self.memory.word(vtable)?;
        let size = self.memory.word(vtable.wrapping_add(8))?;
        let described = self.vtable(vtable).map(|(owner, _)| owner);
        let methods = || Methods::of(self, vtable);
        let fits = |id: &TypeId| self.ty(*id).is_some_and(|ty| ty.size == size);
        let polled = || methods().addresses().iter().take(4).filter_map(|at| self.polled(*at)).find(fits);
        let dropped = || self.function(drop)?.parameters.first().map(|(_, id)| *id);
        described.filter(fits).or_else(polled).or_else(|| dropped().filter(fits))
    }
}
