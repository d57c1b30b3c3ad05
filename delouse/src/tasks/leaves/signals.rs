//! Which signal a task waits for: tokio keeps a watch channel for each, by number, in one static.

use std::sync::OnceLock;

use super::super::process::{Process, Program};
use super::super::route::Route;
use crate::debuginfo::types::Shape;
use crate::snapshot::Address;

/// The greatest number of a signal on Linux.
const SIGRTMAX: u64 = 64;

/// Where tokio keeps its signals, as far as that is known.
#[derive(Default)]
pub(in crate::tasks) struct Learned {
    registry: OnceLock<Option<Registry>>,
}

impl Learned {
    /// The number of the signal whose channel is stored at `shared`.
    pub(in crate::tasks) fn number(&self, process: &Process<'_, '_>, shared: Address) -> Option<i32> {
        self.registry.get_or_init(|| Registry::learn(process)).as_ref()?.number(process, shared)
    }
}

/// `signal/registry.rs`: `Globals { registry: Registry { storage: OsStorage }, … }`, which is a boxed slice of
/// `SignalInfo` from signal 1 on; before about tokio 1.45, a `Vec` that has one for the number 0, too.
struct Registry {
    globals: Address,
    first: Route,
    length: Route,
    stride: u64,
    /// From a `SignalInfo` to its channel.
    channel: Route,
}

impl Registry {
    fn learn(program: &Program<'_>) -> Option<Self> {
        let types = &program.types;
        let symbols = types.symbols_with("6signal8registry7globals7GLOBALS");
        let near = types.symbols_with("5tokio6signal8registry");
        let (globals, of) = symbols.iter().find_map(|symbol| {
            // The static's own address is in the range of no unit; functions of its module are.
            let of = near.iter().take(256).find_map(|near| types.variable(symbol.name, near.address))?;
            Some((symbol.address, of))
        })?;
        let route = |way: &str| Route::compile(program, of, way);
        let storage = program.ty(route("registry storage")?.end)?;
        let (first, length, info) = if storage.path() == "alloc::vec::Vec" {
            let (first, length) = ("registry storage buf ptr pointer", "registry storage len");
            (route(first)?, route(length)?, storage.parameter("T")?)
        } else {
            let first = route("registry storage data_ptr")?;
            let Shape::Pointer(Some(info)) = program.ty(first.end)?.shape else { return None };
            (first, route("registry storage length")?, info)
        };
        Some(Self {
            globals: program.bias.process_address(globals),
            length,
            stride: program.ty(info)?.size,
            channel: Route::compile(program, info, "event_info tx shared *")?,
            first,
        })
    }

    fn number(&self, process: &Process<'_, '_>, shared: Address) -> Option<i32> {
        let first = self.first.address(process, self.globals)?;
        let length = self.length.word(process, self.globals)?;
        let lowest = (SIGRTMAX + 1).checked_sub(length).filter(|lowest| *lowest <= 1)?;
        let place = (0..length).find(|place| {
            let info = place.checked_mul(self.stride).and_then(|offset| first.checked_add(offset));
            info.and_then(|info| self.channel.follow(process, info)) == Some(shared)
        })?;
        i32::try_from(place + lowest).ok()
    }
}
