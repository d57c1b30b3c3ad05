//! The functions, files and lines at a code address.
//!
//! Opening the debug information of a large program costs tens of milliseconds and as many megabytes, so it
//! is done when first needed, kept, and given back by [`Symbols::trim`].

mod dwarf;
mod names;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use self::dwarf::Dwarf;
pub(crate) use self::names::readable;
pub(super) use self::table::SymbolTable;
use super::address::FileAddress;
use super::modules::{Module, Modules};
use super::object_file::ObjectFile;
pub(crate) use super::paths::{Origin, shorten};
use super::separate;
use super::types::CodeLine as Line;
use crate::host::file_parts::Access;
use crate::host::heap::{Baseline, Growth};
use crate::host::memory_budget::{self, Shortage};
use crate::snapshot::{Address, Snapshot};

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
    /// Of the symbol tables only, which takes no longer than sorting them: no lines, no inlined functions.
    names_only: bool,
}

#[derive(Default)]
struct State {
    modules: Option<Arc<Modules>>,
    used: Option<Instant>,
    /// By the address of the `ObjectFile`, which each entry keeps alive.
    files: HashMap<usize, FileSymbols>,
    /// Before the first file was loaded, until the growth since then is measured.
    before: Option<Baseline>,
    grown: Growth,
}

struct FileSymbols {
    /// Keeps the address that this is found by from being used again.
    _object: Arc<ObjectFile>,
    table: SymbolTable,
    dwarf: Option<Dwarf>,
    /// Why lines are missing that the file has.
    short: Option<Shortage>,
    /// The crate that an executable of that name is made from, as a rule. Where files are not known, its functions are
    /// taken for the program's own.
    named_crate: String,
    known: HashMap<FileAddress, Arc<[Location]>>,
    used: Instant,
}

impl Symbols {
    /// Nothing loaded yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The same, for names of functions and nothing else.
    pub(crate) fn names_only() -> Self {
        Self { names_only: true, ..Self::default() }
    }

    /// The modules of `snapshot`; those of the last call where nothing has changed since.
    pub(crate) fn modules(&self, snapshot: &dyn Snapshot) -> Arc<Modules> {
        let mut state = self.lock();
        let modules = Modules::of(snapshot, state.modules.as_ref());
        state.modules = Some(modules.clone());
        state.used = Some(Instant::now());
        modules
    }

    /// The functions at `address`, innermost first. Never empty: where nothing is known, the
    /// one location says so.
    ///
    /// Cold, the first address of a module costs the opening of its debug information, each further one
    /// some tens of microseconds; warm, well below one.
    pub(crate) fn find(&self, module: &Module, address: Address) -> Arc<[Location]> {
        let mut state = self.lock();
        let State { files, before, .. } = &mut *state;
        let file = files.entry(Arc::as_ptr(&module.object) as usize).or_insert_with(|| {
            before.get_or_insert_with(Baseline::now);
            FileSymbols::load(module, !self.names_only)
        });
        file.used = Instant::now();
        file.find(module.file_address(address), module.system)
    }

    /// To be called when an answer is complete, on the thread that made it: measures what was loaded for it, and forgets
    /// what could not be loaded, as the next answer may have the memory. Returns why something was not loaded.
    pub(crate) fn settle(&self) -> Option<Shortage> {
        let mut state = self.lock();
        if let Some(before) = state.before.take() {
            state.grown = state.grown.or(before.growth());
        }
        let short = state.files.values().find_map(|file| file.short)?;
        drop(std::mem::take(&mut *state));
        Some(short)
    }

    /// Whether something is loaded that no request has used since `age`. Returns at once: symbols that a request uses
    /// right now, perhaps for seconds, are in use.
    pub(crate) fn is_unused(&self, age: Duration) -> bool {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        state.is_unused(age) || state.files.values().any(|file| file.used.elapsed() >= age)
    }

    /// Frees what no request has used since `age`, which takes milliseconds, and waits for requests that use symbols.
    /// Returns whether loading it had made the program grow by much.
    pub(crate) fn trim(&self, age: Duration) -> Growth {
        let mut state = self.lock();
        let unused = if state.is_unused(age) {
            std::mem::take(&mut *state)
        } else {
            let of_files = state.files.extract_if(|_, file| file.used.elapsed() >= age).collect();
            state.files.shrink_to_fit();
            State { files: of_files, grown: state.grown, ..State::default() }
        };
        // Freed without the lock, for which the next request may wait.
        drop(state);
        if unused.files.is_empty() { Growth::default() } else { unused.grown }
    }

    /// How many files' symbols are loaded.
    pub(crate) fn loaded(&self) -> usize {
        self.lock().files.len()
    }

    /// Runs `body` as while a request loads symbols.
    #[cfg(test)]
    pub(crate) fn hold(&self, body: impl FnOnce()) {
        let _state = self.lock();
        body();
    }

    /// A panic of another request leaves nothing half done that matters here: caches only.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_unused(&self, age: Duration) -> bool {
        self.used.is_some_and(|used| used.elapsed() >= age)
    }
}

/// The debug file of a stripped module, where the system has one of the same build. It is read, not mapped:
/// the program has not mapped it, and must not end with SIGBUS if the file is overwritten.
fn separate_debug_file(module: &Module) -> Option<ObjectFile> {
    let found = separate::find(&module.path, &module.object.identity()).found?;
    ObjectFile::open(&found, Access::Read)
}

impl FileSymbols {
    fn load(module: &Module, with_lines: bool) -> Self {
        let object = &module.object;
        let mut table = SymbolTable::of(object, ".symtab");
        let mut short = None;
        let mut lines_of = |object: &ObjectFile| {
            let dwarf = if with_lines { Dwarf::of(object, &module.path) } else { None };
            short = short.or(object.shortage());
            dwarf
        };
        let mut dwarf = lines_of(object);
        if (table.is_empty() || dwarf.is_none())
            && with_lines
            && let Some(separate) = separate_debug_file(module)
        {
            dwarf = dwarf.or_else(|| lines_of(&separate));
            if table.is_empty() {
                table = SymbolTable::of(&separate, ".symtab");
            }
        }
        if table.is_empty() {
            table = SymbolTable::of(object, ".dynsym");
        }
        let named_crate = module.name.replace('-', "_");
        let known = HashMap::new();
        let used = Instant::now();
        Self { _object: module.object.clone(), table, dwarf, short, named_crate, known, used }
    }

    fn find(&mut self, address: FileAddress, system: bool) -> Arc<[Location]> {
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

    fn look_up(&mut self, address: FileAddress, system: bool) -> Vec<Location> {
        let mut lines = match (&self.dwarf, memory_budget::check_growth()) {
            (Some(dwarf), Ok(())) => {
                let lines = dwarf.find(address);
                self.short = self.short.or_else(|| dwarf.shortage());
                lines
            }
            (Some(_), Err(shortage)) => {
                self.short.get_or_insert(shortage);
                Vec::new()
            }
            (None, _) => Vec::new(),
        };
        // With line tables only, DWARF has no function here, or only the last part of its name. For
        // functions of C, DWARF has the better of many aliases.
        let in_table = self.table.find(address);
        if lines.is_empty() {
            lines.push(Line::default());
        }
        if let (Some(outermost), Some(symbol)) = (lines.last_mut(), in_table)
            && outermost.symbol.as_deref().is_none_or(|name| !names::is_rust(name) && names::is_rust(symbol))
        {
            outermost.symbol = Some(symbol.to_owned());
        }
        let mut locations: Vec<_> = lines
            .into_iter()
            .map(|line| {
                let function = line.symbol.as_deref().map(readable);
                let is_own = || function.as_deref().is_some_and(|name| names::is_of(name, &self.named_crate));
                let (file, mut origin) = line.file.map(|(file, origin)| (file.to_string(), origin)).unzip();
                if file.is_none() && is_own() {
                    origin = Some(Origin::Own);
                }
                Location {
                    function,
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
