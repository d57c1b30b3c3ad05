//! Types from DWARF: by the address of a function, a vtable or a static, and by name.
//!
//! A binary of a gigabyte has thousands of units, of which a capture touches some dozens. So opening reads
//! unit headers and address ranges only; a unit is indexed by one streaming pass when an address leads to
//! it; and a type is decoded when it is first asked for.

mod bodies;
mod code_lines;
mod code_scopes;
mod content;
mod decode;
pub(in crate::debuginfo) mod dwo;
mod index;
mod index_all;
mod model;
pub(crate) mod names;
mod polls;
mod scopes;
mod split;
mod suspension;
mod symbol_addresses;
mod symbol_names;
mod units;
#[cfg(test)]
mod work;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

pub(crate) use code_lines::{CodeLine, CodeLines};
pub(crate) use code_scopes::{FrameBase, FramePointer, FrameVariable, Scope};
pub(crate) use model::{Discriminant, Member, Shape, Source, Type, TypeId, Variant};
pub(crate) use scopes::Variable;
pub(crate) use suspension::Suspension;
#[cfg(test)]
pub(crate) use work::Work;

use crate::debuginfo::address::FileAddress;
use crate::debuginfo::image::{Image, Symbol};
use crate::debuginfo::lock::lock;
use units::Units;

/// Units that are indexed for the sake of one name.
const MAX_UNITS_FOR_A_NAME: usize = 16;
/// Code addresses whose functions are kept.
const MAX_SCOPES: usize = 1 << 13;

/// The types of one module.
pub(crate) struct Types<'a> {
    image: &'a Image,
    units: Units<'a>,
    symbols: Vec<Symbol<'a>>,
    decoded: Mutex<HashMap<TypeId, Option<Arc<Type>>>>,
    bodies: Mutex<bodies::Finder<'a>>,
    polls: Mutex<polls::Polls>,
    /// Places in `symbols`, in the order of their addresses.
    by_address: OnceLock<Vec<u32>>,
    dependencies: OnceLock<HashSet<String>>,
    statics: OnceLock<Vec<(FileAddress, TypeId)>>,
    names: symbol_names::SymbolNames<'a>,
    scopes: Mutex<HashMap<FileAddress, Arc<[Scope]>>>,
    sources: Mutex<HashMap<FileAddress, Option<Source>>>,
}

/// A function, as far as its signature matters.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    /// Its generic parameters.
    pub(crate) parameters: Vec<(String, TypeId)>,
    /// The type of its first argument.
    pub(crate) first_argument: Option<TypeId>,
    /// The types of its first arguments, without those that have no name.
    pub(crate) arguments: Vec<TypeId>,
}

impl<'a> Types<'a> {
    /// Reads unit headers, address ranges and the symbol table of `image`.
    pub(crate) fn open(image: &'a Image) -> Arc<Self> {
        Arc::new(Self {
            image,
            units: Units::open(image),
            symbols: image.symbols(),
            decoded: Mutex::default(),
            bodies: Mutex::default(),
            polls: Mutex::default(),
            by_address: OnceLock::new(),
            dependencies: OnceLock::new(),
            statics: OnceLock::new(),
            names: symbol_names::SymbolNames::default(),
            scopes: Mutex::default(),
            sources: Mutex::default(),
        })
    }

    /// What is missing where units are split off and their files were not found so far, and what to do about it.
    pub(crate) fn missing(&self) -> Option<String> {
        let object = self.units.missing()?;
        let package = self.image.package_path().display();
        Some(match self.image.package() {
            Some(_) => format!("{package} is of another build: put the one of this build there"),
            None => format!("put {package} back, or the .dwo files, such as {}", object.display()),
        })
    }

    /// How much of the debug information was read so far.
    #[cfg(test)]
    pub(crate) fn work(&self) -> Work {
        self.units.work()
    }

    /// The file that the types come from.
    pub(crate) fn image(&self) -> &'a Image {
        self.image
    }

    /// The symbols with `part` in their mangled names. Looked for once: there may be a million symbols.
    pub(crate) fn symbols_with(&self, part: &'static str) -> Arc<[Symbol<'a>]> {
        self.names.with(&self.symbols, self.image.symbol_names(), part)
    }

    /// The symbols with `part` in their mangled names, for a part that is searched for once.
    fn symbols_with_any(&self, part: &str) -> Vec<Symbol<'a>> {
        self.names.find(&self.symbols, self.image.symbol_names(), part.as_bytes())
    }

    /// Whether the file has symbols.
    pub(crate) fn has_symbols(&self) -> bool {
        !self.symbols.is_empty()
    }

    /// The type at `id`, decoded once.
    pub(crate) fn get(&self, id: TypeId) -> Option<Arc<Type>> {
        if let Some(known) = lock(&self.decoded).get(&id) {
            return known.clone();
        }
        let decoded = decode::decode(&self.units, id).map(Arc::new);
        lock(&self.decoded).insert(id, decoded.clone());
        decoded
    }

    /// The function that starts at `address`.
    pub(crate) fn function(&self, address: FileAddress) -> Option<Function> {
        self.units.candidates(address).into_iter().find_map(|number| {
            let unit = self.units.unit(number)?;
            let offset = unit.index().function_at(address)?;
            decode::function(&self.units, TypeId { unit: number, offset })
        })
    }

    /// The functions at a code address, innermost first: those that were inlined there, and last the one whose code it
    /// is. Empty where there is no debug information.
    pub(crate) fn scopes(&self, address: FileAddress) -> Arc<[Scope]> {
        if let Some(known) = lock(&self.scopes).get(&address) {
            return Arc::clone(known);
        }
        let units = self.units.candidates(address).into_iter();
        let found = units.filter_map(|unit| code_scopes::scopes(&self.units, unit, address)).next();
        let found: Arc<[Scope]> = found.unwrap_or_default().into();
        let mut known = lock(&self.scopes);
        if known.len() >= MAX_SCOPES {
            known.clear();
        }
        known.insert(address, Arc::clone(&found));
        found
    }

    /// The pointers into its own frame that the function at a code address has anywhere in its code. Reads the whole function.
    pub(crate) fn pointers_into_frame(&self, address: FileAddress) -> Vec<FramePointer> {
        let mut units = self.units.candidates(address).into_iter();
        units.find_map(|unit| code_scopes::pointers(&self.units, unit, address)).unwrap_or_default()
    }

    /// The line of source that the code at `address` belongs to. Reads the line table of a unit, which may take
    /// milliseconds, once for each address.
    pub(crate) fn source_at(&self, address: FileAddress) -> Option<Source> {
        if let Some(known) = lock(&self.sources).get(&address) {
            return known.clone();
        }
        let units = self.units.candidates(address).into_iter();
        let source = units.filter_map(|unit| self.units.unit(unit)?.source_at(address)).next();
        let mut known = lock(&self.sources);
        if known.len() >= MAX_SCOPES {
            known.clear();
        }
        known.insert(address, source.clone());
        source
    }

    /// The name of the function that starts at `address`, with its generic arguments; of builds without types,
    /// too, where they have more than line tables (`debug = 1`).
    pub(crate) fn function_name(&self, address: FileAddress) -> Option<String> {
        self.units.candidates(address).into_iter().find_map(|number| {
            let unit = self.units.unit(number)?;
            let offset = unit.index().function_at(address)?;
            decode::function_name(&self.units, TypeId { unit: number, offset })
        })
    }

    /// Whether the type at `id`, which has that path, is a future.
    pub(crate) fn is_future(&self, id: TypeId, path: &str) -> bool {
        lock(&self.polls).has(self, id, path)
    }

    /// The type that the vtable at `address` belongs to, and the size of the vtable.
    ///
    /// A vtable stands in the unit that made the `dyn`; its own address is in no range, so the unit is found
    /// by the address of any function that the vtable points to.
    pub(crate) fn vtable(&self, address: FileAddress, entries: &[FileAddress]) -> Option<(TypeId, u64)> {
        let numbers = entries.iter().flat_map(|entry| self.units.candidates(*entry));
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.dedup();
        numbers.into_iter().find_map(|number| {
            let unit = self.units.unit(number)?;
            let described = unit.index().vtable_at(address)?;
            let id = TypeId { unit: number, offset: described };
            Some((decode::containing_type(&self.units, id)?, self.get(id).map_or(0, |ty| ty.size)))
        })
    }

    /// The type of the variable with that linkage name, searched for in the unit of the function at `near`.
    pub(crate) fn variable(&self, linkage_name: &[u8], near: FileAddress) -> Option<TypeId> {
        let linkage_name = names::without_llvm_suffix(linkage_name);
        self.units.candidates(near).into_iter().find_map(|number| {
            let unit = self.units.unit(number)?;
            let offset = unit.index().variable(&unit, linkage_name)?;
            Some(TypeId { unit: number, offset })
        })
    }

    /// The statics that can be written to, with their types: those of the program's own crates. The first call
    /// indexes all units of those.
    pub(crate) fn statics(&self) -> &[(FileAddress, TypeId)] {
        self.statics.get_or_init(|| {
            let sections = [".data", ".bss"].map(|name| self.image.section_range(name).unwrap_or_default());
            let written = |address: FileAddress| sections.iter().any(|range| range.contains(&address));
            let symbols = self.symbols.iter().filter(|symbol| written(symbol.address));
            let addresses: HashMap<&[u8], FileAddress> =
                symbols.map(|symbol| (names::without_llvm_suffix(symbol.name), symbol.address)).collect();
            let own = self.units.own();
            index_all::index_all(&self.units, &own);
            let mut statics = Vec::new();
            for number in own {
                let Some(unit) = self.units.unit(number) else { continue };
                for (name, offset) in unit.index().variables(&unit) {
                    if let Some(address) = addresses.get(name) {
                        statics.push((*address, TypeId { unit: number, offset }));
                    }
                }
            }
            statics.sort_unstable();
            statics.dedup_by_key(|(address, _)| *address);
            statics
        })
    }

    /// Whether a crate comes from a registry or a git repository. The first call reads the head of every
    /// unit.
    pub(crate) fn is_dependency(&self, name: &str) -> bool {
        self.dependencies.get_or_init(|| self.units.dependencies()).contains(name)
    }

    /// Whether what has that path is of one of the program's own crates, or of a path dependency.
    pub(crate) fn is_own(&self, path: &str) -> bool {
        let name = path.split("::").next().unwrap_or_default();
        !matches!(name, "core" | "alloc" | "std") && !self.is_dependency(name)
    }

    /// The type at `path` (without parameters), which is looked for in the units of the functions whose
    /// symbols have `part` in them.
    pub(crate) fn at_path(&self, path: &str, part: &'static str) -> Option<TypeId> {
        self.all_at_path(path, part).next()
    }

    /// The types with that path: there is one in each unit that uses it, and two versions of a crate differ.
    pub(crate) fn all_at_path<'t>(
        &'t self,
        path: &'t str,
        part: &'static str,
    ) -> impl Iterator<Item = TypeId> + use<'t, 'a> {
        let name = names::last_segment(path);
        let near = self.symbols_with(part);
        let mut numbers: Vec<u32> =
            near.iter().flat_map(|symbol| self.units.candidates(symbol.address)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        // Those that are known already cost nothing.
        numbers.sort_by_key(|number| !self.units.indexed().contains(number));
        numbers.into_iter().take(MAX_UNITS_FOR_A_NAME).filter_map(move |unit| {
            let offset = self.units.type_named(unit, name.as_bytes())?;
            let found = TypeId { unit, offset };
            (self.get(found)?.name == path).then_some(found)
        })
    }

    /// The type with that full name, parameters included, in the units of the functions at `near`. A mere declaration of
    /// it, which has no size, is passed over.
    pub(crate) fn named(&self, name: &str, near: &[FileAddress]) -> Option<TypeId> {
        let last = names::last_segment(name).as_bytes();
        let mut numbers: Vec<u32> = near.iter().flat_map(|address| self.units.candidates(*address)).collect();
        let mut seen = HashSet::new();
        numbers.retain(|number| seen.insert(*number));
        numbers.into_iter().take(MAX_UNITS_FOR_A_NAME).find_map(|unit| {
            let offset = self.units.type_named(unit, last)?;
            let found = TypeId { unit, offset };
            self.get(found).filter(|ty| ty.name == name && ty.size > 0).map(|_| found)
        })
    }
}
