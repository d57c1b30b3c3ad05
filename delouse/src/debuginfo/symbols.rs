//! The functions, files and lines at a code address.
//!
//! Opening the debug information of a large program costs tens of milliseconds and as many megabytes, so it
//! is done when first needed, kept, and given back by [`Symbols::trim`].

mod dwarf;
mod names;
mod paths;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use object::read::elf::ElfFile64;

use self::dwarf::{Dwarf, MAX_SEPARATE};
pub(crate) use self::names::readable;
pub(crate) use self::paths::{Origin, shorten};
use self::table::SymbolTable;
use super::modules::{Module, Modules};
use super::object_file::ObjectFile;
use super::separate::{self, Identity};
use crate::snapshot::Snapshot;
use crate::snapshot::shared_bytes::SharedBytes;

/// Addresses whose answers are kept, for each file. Two hundred threads have about two thousand.
const MAX_CACHED: usize = 1 << 15;

/// One function at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// Readable name; `None` where nothing is known.
    pub(crate) function: Option<String>,
    /// Source file, shortened to what people know.
    pub(crate) file: Option<String>,
    /// Source line.
    pub(crate) line: Option<u32>,
    /// Whose code it is; `None` where the file is not known, and for the system's libraries.
    pub(crate) origin: Option<Origin>,
    /// Inlined into the next one.
    pub(crate) inlined: bool,
}

/// Symbols of all modules, lazily loaded, cached by address. Shared by all requests.
#[derive(Default)]
pub(crate) struct Symbols {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    modules: Option<Arc<Modules>>,
    used: Option<Instant>,
    /// By the address of the `ObjectFile`, which each entry keeps alive.
    files: HashMap<usize, FileSymbols>,
}

struct FileSymbols {
    /// Keeps the address that this is found by from being used again.
    _object: Arc<ObjectFile>,
    table: SymbolTable,
    dwarf: Option<Dwarf>,
    known: HashMap<u64, Arc<[Location]>>,
    used: Instant,
}

impl Symbols {
    /// Nothing loaded yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The modules of `snapshot`; those of the last call where nothing has changed since.
    pub(crate) fn modules(&self, snapshot: &dyn Snapshot) -> Arc<Modules> {
        let mut state = self.lock();
        let modules = Modules::of(snapshot, state.modules.as_ref());
        state.modules = Some(modules.clone());
        state.used = Some(Instant::now());
        modules
    }

    /// The functions at `address` (of memory), innermost first. Never empty: where nothing is known, the
    /// one location says so.
    ///
    /// Cold, the first address of a module costs the opening of its debug information, each further one
    /// some tens of microseconds; warm, well below one.
    pub(crate) fn find(&self, module: &Module, address: u64) -> Arc<[Location]> {
        let mut state = self.lock();
        let file = state
            .files
            .entry(Arc::as_ptr(&module.object) as usize)
            .or_insert_with(|| FileSymbols::load(module));
        file.used = Instant::now();
        file.find(module.stated(address), module.system)
    }

    /// Gives back what nobody has asked for since `age`.
    pub(crate) fn trim(&self, age: Duration) {
        let mut state = self.lock();
        state.files.retain(|_, file| file.used.elapsed() < age);
        if state.used.is_some_and(|used| used.elapsed() >= age) {
            *state = State::default();
        } else {
            state.files.shrink_to_fit();
        }
    }

    /// How many files' symbols are loaded.
    pub(crate) fn loaded(&self) -> usize {
        self.lock().files.len()
    }

    /// A panic of another request leaves nothing half done that matters here: caches only.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The debug file of a stripped module, where the system has one of the same build. It is read, not mapped:
/// the program has not mapped it, and must not end with SIGBUS when somebody writes to it.
fn separate_debug_file(module: &Module) -> Option<ObjectFile> {
    let bytes: &[u8] = module.object.bytes();
    let identity = Identity::of(&ElfFile64::<object::LittleEndian>::parse(bytes).ok()?);
    let found = separate::find(&module.path, &identity).found?;
    ObjectFile::parse(SharedBytes::read(&found, MAX_SEPARATE).ok()?)
}

impl FileSymbols {
    fn load(module: &Module) -> Self {
        let object = &module.object;
        let mut table = SymbolTable::of(object, ".symtab");
        let mut dwarf = Dwarf::of(object, &module.path);
        if (table.is_empty() || dwarf.is_none())
            && let Some(separate) = separate_debug_file(module)
        {
            dwarf = dwarf.or_else(|| Dwarf::of(&separate, &module.path));
            if table.is_empty() {
                table = SymbolTable::of(&separate, ".symtab");
            }
        }
        if table.is_empty() {
            table = SymbolTable::of(object, ".dynsym");
        }
        Self { _object: module.object.clone(), table, dwarf, known: HashMap::new(), used: Instant::now() }
    }

    fn find(&mut self, address: u64, system: bool) -> Arc<[Location]> {
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        let found: Arc<[Location]> = self.look_up(address, system).into();
        if self.known.len() >= MAX_CACHED {
            self.known.clear();
        }
        self.known.insert(address, found.clone());
        found
    }

    fn look_up(&mut self, address: u64, system: bool) -> Vec<Location> {
        let mut lines = self.dwarf.as_mut().map(|d| d.find(address)).unwrap_or_default();
        // With line tables only, DWARF has no function here, or only the last part of its name. For
        // functions of C, DWARF has the better of many aliases.
        let in_table = self.table.find(address);
        if lines.is_empty() {
            lines.push(dwarf::Line::default());
        }
        if let (Some(outermost), Some(symbol)) = (lines.last_mut(), in_table)
            && outermost.symbol.as_deref().is_none_or(|name| !names::is_rust(name) && names::is_rust(symbol))
        {
            outermost.symbol = Some(symbol.to_owned());
        }
        let mut locations: Vec<_> = lines
            .into_iter()
            .map(|line| {
                let (file, origin) = line.file.unzip();
                Location {
                    function: line.symbol.as_deref().map(readable),
                    file,
                    line: line.line,
                    origin: origin.filter(|_| !system),
                    inlined: true,
                }
            })
            .collect();
        if let Some(outermost) = locations.last_mut() {
            outermost.inlined = false;
        }
        locations
    }
}
