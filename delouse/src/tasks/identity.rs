//! The name of a scheduler, and whether it belongs to a `LocalRuntime`.

use super::header::Flavor;
use super::process::{Process, Program};
use super::route::Route;
use crate::debuginfo::types::TypeId;
use crate::snapshot::Address;

/// The routes from the `Arc<Handle>` of a scheduler to what identifies it: `scheduler/*/handle.rs`.
pub(super) struct Identity {
    name: Option<Name>,
    /// `Option<ThreadId>` of the thread that a `LocalRuntime` belongs to; its ids are never 0.
    local: Option<Route>,
}

/// The parts of an `Option<String>`: the lengths that no string can have are `None`'s.
struct Name {
    capacity: Route,
    pointer: Route,
    length: Route,
}

impl Identity {
    /// `of` is the type of the `Arc`.
    pub(super) fn learn(program: &Program<'_>, of: TypeId) -> Self {
        let handle = Route::compile(program, of, "*").and_then(|way| program.ty(way.end));
        let has = |member: &str| handle.as_ref().is_some_and(|handle| handle.member(member).is_some());
        let way = |way: &str| Route::compile(program, of, way);
        let name = || {
            Some(Name {
                capacity: way("* name cap")?,
                pointer: way("* name pointer")?,
                length: way("* name len")?,
            })
        };
        Self {
            // Older versions have neither, and other fields of that name further inside.
            name: if has("name") { name() } else { None },
            local: way("* local_tid").filter(|_| has("local_tid")),
        }
    }

    /// Whether the scheduler whose `Arc` is stored at `place` belongs to a `LocalRuntime`.
    pub(super) fn is_local(&self, process: &Process<'_, '_>, place: Address) -> bool {
        let owner = self.local.as_ref().and_then(|way| way.word(process, place));
        owner.is_some_and(|owner| owner != 0)
    }

    /// `second (multi_thread 2)`, or without a name `multi_thread 2`.
    pub(super) fn name(
        &self,
        process: &Process<'_, '_>,
        place: Address,
        flavor: Flavor,
        number: u64,
    ) -> String {
        let flavor = if self.is_local(process, place) { "local" } else { flavor.name() };
        match self.name.as_ref().and_then(|name| name.read(process, place)) {
            Some(name) => format!("{name} ({flavor} {number})"),
            None => format!("{flavor} {number}"),
        }
    }
}

impl Name {
    fn read(&self, process: &Process<'_, '_>, place: Address) -> Option<String> {
        self.capacity.word(process, place).filter(|capacity| capacity >> 63 == 0)?;
        let (pointer, length) = (self.pointer.address(process, place)?, self.length.word(process, place)?);
        let text = process.memory.text(pointer, length)?;
        (!text.is_empty()).then(|| text.escape_debug().to_string())
    }
}
