//! Which types are futures: those that have a function `<T as Future>::poll`.
//!
//! Debug information does not say which traits a type implements. The functions of the impl are there: as a symbol, or,
//! where every call was inlined, as an entry of the unit that has the type.

use std::collections::{HashMap, HashSet};

use super::model::TypeId;
use super::names;
use super::units::Units;
use super::{Types, decode};

/// Functions of one unit that are looked at.
const MAX_POLLS: usize = 1 << 16;
/// What ends the demangled name of such a function.
const END: &str = " as core::future::future::Future>::poll";

/// The paths of types that are futures, without parameters.
#[derive(Default)]
pub(super) struct Polls {
    by_symbols: Option<HashSet<String>>,
    by_units: HashMap<u32, HashSet<String>>,
}

impl Polls {
    /// Whether the type at `id`, which has that path, is a future.
    pub(super) fn has(&mut self, types: &Types<'_>, id: TypeId, path: &str) -> bool {
        let by_symbols = self.by_symbols.get_or_insert_with(|| of_symbols(types));
        let of_unit = || of_unit(&types.units, id.unit);
        by_symbols.contains(path) || self.by_units.entry(id.unit).or_insert_with(of_unit).contains(path)
    }
}

fn of_symbols(types: &Types<'_>) -> HashSet<String> {
    let symbols = types.symbols_with("4poll");
    let demangled = symbols.iter().filter_map(|symbol| {
        let name = std::str::from_utf8(symbol.name).ok()?;
        Some(format!("{:#}", rustc_demangle::try_demangle(name).ok()?))
    });
    demangled.filter_map(|name| self_of(&name).map(str::to_owned)).collect()
}

/// `app::Retry` of `<app::Retry<F> as core::future::future::Future>::poll`.
fn self_of(demangled: &str) -> Option<&str> {
    let of = demangled.strip_prefix('<')?.strip_suffix(END)?;
    Some(names::without_parameters(of))
}

/// The types whose `poll` has an entry in that unit, be it only to be inlined.
fn of_unit(units: &Units<'_>, number: u32) -> HashSet<String> {
    let Some(unit) = units.unit(number) else { return HashSet::new() };
    let polls = unit.index().polls.iter().take(MAX_POLLS);
    let pinned = polls.filter_map(|offset| {
        let of = decode::receiver(units, TypeId { unit: number, offset: *offset })?;
        let of = decode::name(units, of)?;
        let of = of.strip_prefix("core::pin::Pin<&mut ")?.strip_suffix('>')?;
        Some(names::without_parameters(of).to_owned())
    });
    pinned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futures_by_the_symbols_of_their_polls() {
        for (name, of) in [
            ("<app::Retry<F> as core::future::future::Future>::poll", Some("app::Retry")),
            ("<app::Retry<app::Dial> as core::future::future::Future>::poll", Some("app::Retry")),
            ("<app::Retry<F> as app::Future>::poll", None),
            ("<app::Retry as core::future::future::Future>::poll::helper", None),
            ("tokio::runtime::task::raw::poll::<app::Retry>", None),
        ] {
            assert_eq!(self_of(name), of, "{name}");
        }
    }
}
