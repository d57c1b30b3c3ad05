//! From the type of a coroutine to the function that polls it.
//!
//! The type says at which line it is suspended, but inside a macro that line is the macro's; and a method's
//! path stands there as `{impl#3}`. The function knows better: its linkage name has the type that the method
//! belongs to, and its variables `__awaitee` have the line of the call site.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use gimli::constants as dw;
use rustc_hash::FxHashMap;

use super::model::{Shape, TypeId};
use super::scopes::Scopes;
use super::{Types, decode, names};
use crate::debuginfo::image::Symbol;

/// Units that are indexed for the sake of functions whose unit is not known, of one file.
const MAX_UNITS: usize = 256;
/// Symbols of one name that are compared with a path.
const MAX_SYMBOLS: usize = 1 << 14;

/// A coroutine's poll function.
#[derive(Debug)]
pub(crate) struct Body {
    /// Mangled.
    pub(crate) linkage_name: Option<String>,
    at: TypeId,
    scopes: OnceLock<Option<Scopes>>,
}

/// How far a function is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effort {
    /// In the units of functions by that name: where it is, unless it was inlined.
    Symbols,
    /// In all units of its crate.
    Crate,
}

/// Remembers where functions were found.
#[derive(Default)]
pub(super) struct Finder<'a> {
    /// By the full name of the coroutine, with how far it was searched for.
    found: HashMap<String, (Effort, Option<Arc<Body>>)>,
    /// Closures and coroutines among the v0 symbols, by the item they are in: `handle` of
    /// `app::Server::handle::{closure#0}`.
    v0_by_item: Option<FxHashMap<Cow<'a, [u8]>, Vec<Symbol<'a>>>>,
    /// The units of each crate.
    of_crate: HashMap<String, Arc<[u32]>>,
    /// How many units were indexed for this.
    indexed: usize,
}

impl<'a> Finder<'a> {
    /// The poll function of the coroutine with that full name.
    pub(super) fn find(
        &mut self,
        types: &Types<'a>,
        coroutine: TypeId,
        name: &str,
        effort: Effort,
    ) -> Option<Arc<Body>> {
        if let Some((searched, known)) = self.found.get(name)
            && (known.is_some() || *searched >= effort)
        {
            return known.clone();
        }
        let found = self.search(types, coroutine, name, effort).map(Arc::new);
        self.found.insert(name.to_owned(), (effort, found.clone()));
        found
    }

    fn search(&mut self, types: &Types<'a>, coroutine: TypeId, name: &str, effort: Effort) -> Option<Body> {
        let units = &types.units;
        let path = names::body_of(name)?;
        let mut tried = vec![coroutine.unit];
        let in_unit = |unit: u32| in_unit(types, unit, name, &path);
        // Where it is generic, any other copy of it is better than none.
        let mut similar = in_unit(coroutine.unit);
        for unit in units.indexed() {
            if similar.as_ref().is_some_and(|body| body.is_exact) {
                break;
            }
            if !tried.contains(&unit) {
                tried.push(unit);
                similar = in_unit(unit).filter(|body| body.is_exact).or(similar);
            }
        }
        if similar.is_none() {
            let mut near = self.of_symbols(types, &path);
            if effort >= Effort::Crate {
                let name = path.split("::").next().unwrap_or_default();
                near.extend(self.of_crate(types, name).iter());
            }
            for unit in near {
                if similar.is_some() || self.indexed >= MAX_UNITS {
                    break;
                }
                if !tried.contains(&unit) {
                    tried.push(unit);
                    self.indexed += 1;
                    similar = in_unit(unit);
                }
            }
        }
        similar.map(|found| found.body)
    }

    /// The units of the closures and coroutines in items of the same name, those at the same path first.
    fn of_symbols(&mut self, types: &Types<'a>, path: &str) -> Vec<u32> {
        let Some(item) = names::enclosing_item(path) else { return Vec::new() };
        let v0 = self.v0_by_item.get_or_insert_with(|| v0_items(types));
        let v0 = v0.get(item.as_bytes()).map(Vec::as_slice).unwrap_or_default();
        let legacy = legacy_closures(types, item);
        let symbols: Vec<Symbol<'a>> = legacy.chain(v0.iter().copied()).collect();
        let mut units: Vec<(usize, u32)> = Vec::new();
        for symbol in symbols.iter().take(MAX_SYMBOLS) {
            let likeness = names::likeness(path, symbol.name);
            for unit in types.units.candidates(symbol.address) {
                match units.iter_mut().find(|(_, known)| *known == unit) {
                    Some((best, _)) => *best = likeness.max(*best),
                    None => units.push((likeness, unit)),
                }
            }
        }
        units.sort_by_key(|(likeness, _)| std::cmp::Reverse(*likeness));
        units.into_iter().map(|(_, unit)| unit).collect()
    }

    /// The units of a crate: those with the same root file as the one that has most of its functions.
    fn of_crate(&mut self, types: &Types<'a>, name: &str) -> Arc<[u32]> {
        let units = self.of_crate.entry(name.to_owned()).or_insert_with(|| {
            let mut votes: HashMap<u32, usize> = HashMap::new();
            let own = types.symbols.iter().filter(|symbol| names::is_in_crate(symbol.name, name));
            for symbol in own.take(MAX_SYMBOLS) {
                for unit in types.units.candidates(symbol.address) {
                    *votes.entry(unit).or_default() += 1;
                }
            }
            let most = votes.into_iter().max_by_key(|(unit, votes)| (*votes, *unit));
            most.map(|(unit, _)| types.units.alike(unit)).unwrap_or_default().into()
        });
        Arc::clone(units)
    }
}

impl Body {
    /// Its variables, read at the first question.
    pub(super) fn scopes(&self, types: &Types<'_>) -> Option<&Scopes> {
        self.scopes.get_or_init(|| Scopes::read(&types.units, self.at)).as_ref()
    }

    /// Whether it is the function of the coroutine with that full name, rather than one of other parameters.
    pub(super) fn is_of(&self, types: &Types<'_>, name: &str) -> bool {
        let receiver = self.scopes(types).and_then(|scopes| scopes.receiver);
        receiver.is_some_and(|receiver| is_pin_of(types, receiver, name))
    }
}

/// A poll function that has the path.
struct Found {
    body: Body,
    /// The parameters are the same, too.
    is_exact: bool,
}

/// The function of the coroutine `name` in a unit, or another one at `path`.
fn in_unit(types: &Types<'_>, number: u32, name: &str, path: &str) -> Option<Found> {
    let unit = types.units.unit(number)?;
    let mut similar = None;
    for offset in unit.index().bodies_at(&unit, path) {
        let at = TypeId { unit: number, offset };
        let is_exact =
            decode::receiver(&types.units, at).is_some_and(|receiver| is_pin_of(types, receiver, name));
        if !is_exact && similar.is_some() {
            continue;
        }
        let linkage_name =
            unit.entry(offset).and_then(|entry| decode::text(&unit, &entry, dw::DW_AT_linkage_name));
        let body = Body { linkage_name, at, scopes: OnceLock::new() };
        similar = Some(Found { body, is_exact });
        if is_exact {
            break;
        }
    }
    similar
}

/// Whether a type is `Pin<&mut T>`, where `T` has that full name.
fn is_pin_of(types: &Types<'_>, pin: TypeId, name: &str) -> bool {
    let target = || {
        let pin = types.get(pin)?;
        match types.get(pin.members.first()?.of)?.shape {
            Shape::Pointer(target) => decode::name(&types.units, target?),
            _ => None,
        }
    };
    target().is_some_and(|of| of == name)
}

/// The closures and coroutines in items of that name, among legacy symbols.
fn legacy_closures<'a>(types: &Types<'a>, item: &str) -> impl Iterator<Item = Symbol<'a>> {
    let parts = names::CLOSURES.into_iter();
    let parts = parts.map(move |(closure, length)| format!("{}{item}{length}{closure}", item.len()));
    let symbols = parts.flat_map(move |part| types.symbols_with_any(&part));
    symbols.filter(move |symbol| names::item_of_closure(symbol.name).as_deref() == Some(item.as_bytes()))
}

/// All closures and coroutines among the v0 symbols, by the item they are in.
fn v0_items<'a>(types: &Types<'a>) -> FxHashMap<Cow<'a, [u8]>, Vec<Symbol<'a>>> {
    let mut items: FxHashMap<_, Vec<_>> = FxHashMap::default();
    for symbol in types.symbols.iter().filter(|symbol| symbol.name.starts_with(b"_R")) {
        if let Some(item) = names::item_of_closure(symbol.name) {
            items.entry(item).or_default().push(*symbol);
        }
    }
    items
}
