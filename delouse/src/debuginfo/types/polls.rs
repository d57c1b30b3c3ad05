//! Which types are futures: those that have a function `<T as Future>::poll`.
//!
//! Debug information does not say which traits a type implements. The functions of the impl are there: as a symbol, or,
//! where every call was inlined, as an entry of the unit that has the type.

use std::collections::{HashMap, HashSet};

use super::model::TypeId;
use super::names;
use super::units::Units;
use super::{Types, decode};
use crate::host::search;

/// Functions of one unit that are looked at.
const MAX_POLLS: usize = 1 << 16;
/// What ends the demangled name of such a function.
const END: &str = " as core::future::future::Future>::poll";

/// The same in a legacy symbol, up to its hash.
const LEGACY_END: &[u8] = b"$u20$as$u20$core..future..future..Future$GT$4poll17h";

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
    types.symbols_with("4poll").iter().filter_map(|symbol| of_symbol(symbol.name)).collect()
}

/// The path of the type, if it is the symbol of such a function.
fn of_symbol(symbol: &[u8]) -> Option<String> {
    let Some(legacy) = symbol.strip_prefix(b"_ZN") else { return demangled(symbol) };
    let end = search::find(legacy, LEGACY_END)?;
    let digits = legacy.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let type_name = legacy.get(digits..end)?.strip_prefix(b"_$LT$")?;
    let path =
        search::find(type_name, b"$").map_or(type_name, |end| type_name.get(..end).unwrap_or_default());
    // Of thousands of symbols, few have anything else in a path. Demangling takes most of the time in a dev build.
    let is_plain = path.len() == type_name.len() || type_name.get(path.len()..)?.starts_with(b"$LT$");
    if !is_plain || path.is_empty() {
        return demangled(symbol);
    }
    Some(std::str::from_utf8(path).ok()?.replace("..", "::"))
}

fn demangled(symbol: &[u8]) -> Option<String> {
    let name = format!("{:#}", rustc_demangle::try_demangle(std::str::from_utf8(symbol).ok()?).ok()?);
    self_of(&name).map(str::to_owned)
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
        let future = "$u20$as$u20$core..future..future..Future$GT$";
        for (segment, rest, of) in [
            (format!("_$LT$app..Retry$LT$F$GT${future}"), "4poll", Some("app::Retry")),
            (format!("_$LT$app..a..Retry{future}"), "4poll", Some("app::a::Retry")),
            (format!("_$LT$$RF$mut$u20$F{future}"), "4poll", Some("&mut F")),
            (format!("_$LT$app..Retry{future}"), "4poll6helper", None),
            ("_$LT$app..Retry$u20$as$u20$app..Future$GT$".to_owned(), "4poll", None),
            ("app".to_owned(), "4poll", None),
        ] {
            let symbol = format!("_ZN{}{segment}{rest}17h0123456789abcdefE", segment.len());
            assert_eq!(of_symbol(symbol.as_bytes()).as_deref(), of, "{symbol}");
            assert_eq!(demangled(symbol.as_bytes()).as_deref(), of, "{symbol}, demangled");
        }
        assert_eq!(of_symbol(b"_RNvCs1234_3app4poll"), None);
    }
}
