//! From the type of a coroutine to the function that polls it.
//!
//! The type says at which line it is suspended, but inside a macro that line is the macro's; and a method's
//! path stands there as `{impl#3}`. The function knows better: its linkage name has the type that the method
//! belongs to, and its variables `__awaitee` have the line of the call site.

use std::collections::HashMap;
use std::rc::Rc;

use super::model::{Source, TypeId};
use super::units::Units;
use super::{Types, decode, names};

/// How many functions of one name are looked at.
const MAX_CANDIDATES: usize = 64;

/// A coroutine's poll function.
#[derive(Debug)]
pub(crate) struct Body {
    /// Mangled.
    pub(crate) linkage_name: Option<String>,
    /// The type's name of what each `.await` waits for, and where it stands.
    pub(crate) awaits: Vec<(String, Source)>,
}

/// Remembers where functions were found.
#[derive(Default)]
pub(super) struct Finder {
    found: HashMap<String, Option<Rc<Body>>>,
    /// Addresses of functions inside an item, by the item's name: `handle` of `app::Server::handle::{{closure}}`.
    by_item: Option<HashMap<Vec<u8>, Vec<u64>>>,
}

impl Finder {
    pub(super) fn find(
        &mut self,
        types: &Types<'_>,
        units: &Units<'_>,
        coroutine: TypeId,
        path: &str,
    ) -> Option<Rc<Body>> {
        let wanted = names::body_of(path)?;
        if let Some(known) = self.found.get(&wanted) {
            return known.clone();
        }
        let found = in_unit(units, coroutine.unit, &wanted).or_else(|| {
            // A function that was inlined into others of another unit has no symbol; that unit may be known.
            let elsewhere = || units.indexed().into_iter().find_map(|unit| in_unit(units, unit, &wanted));
            let item = names::enclosing_item(path)?;
            let by_item = self.by_item.get_or_insert_with(|| items(types));
            let Some(addresses) = by_item.get(item.as_bytes()) else { return elsewhere() };
            let mut tried = Vec::new();
            for address in addresses.iter().take(MAX_CANDIDATES) {
                for unit in units.candidates(*address) {
                    if !tried.contains(&unit) {
                        tried.push(unit);
                        if let Some(body) = in_unit(units, unit, &wanted) {
                            return Some(body);
                        }
                    }
                }
            }
            elsewhere()
        });
        let found = found.map(Rc::new);
        self.found.insert(wanted, found.clone());
        found
    }
}

/// The function called `wanted` in a unit; that its parameters differ does not matter.
fn in_unit(units: &Units<'_>, number: u32, wanted: &str) -> Option<Body> {
    let unit = units.unit(number)?;
    let index = unit.index();
    let item = names::enclosing_item(wanted)?;
    let matching = index.bodies.iter().find(|body| {
        let scopes = index.path(body.offset);
        scopes.iter().any(|scope| scope.starts_with(item.as_bytes()))
            && decode::name(units, TypeId { unit: number, offset: body.offset })
                .is_some_and(|name| names::without_parameters(&name) == wanted)
    })?;
    let awaits = matching.awaits.iter().filter_map(|(of, file, line)| {
        let name = decode::name(units, TypeId { unit: number, offset: *of })?;
        Some((name, unit.source(*file, *line)?))
    });
    Some(Body {
        linkage_name: matching.linkage_name.map(|name| String::from_utf8_lossy(name).into_owned()),
        awaits: awaits.collect(),
    })
}

/// All closures and coroutines among the symbols, by the item they stand in.
fn items(types: &Types<'_>) -> HashMap<Vec<u8>, Vec<u64>> {
    let mut items: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
    for symbol in types.symbols() {
        if let Some(item) = names::item_of_closure(symbol.name) {
            items.entry(item.into_owned()).or_default().push(symbol.address);
        }
    }
    items
}
