//! Which executables and libraries are mapped where.
//!
//! A module is found by its mappings that hold code; where it begins and ends follows from its program
//! headers. Neighbouring mappings of the same file do not count: delouse maps the same files for reading,
//! and the kernel likes to put such a mapping right below the library itself.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::address::LoadBias;
pub(crate) use super::module::Module;
use super::object_file::ObjectFile;
use super::unwind::Tables;
use crate::host::file_parts::Access;
use crate::host::memory_budget::{self, Amount};
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::{Address, FileOffset, Mapping, Snapshot};

/// `dlopen` of more code than this is not believed.
const MAX_MODULES: usize = 4096;
/// What is read of a module that is no longer on disk, in bytes.
const MAX_IMAGE: usize = 256 << 20;
/// How much of a file is compared with memory to see that it is the one that runs: its header, program
/// headers and (by the linkers' habit) build-id.
const COMPARED: usize = 1024;

/// All modules of a snapshot, ordered by address.
#[derive(Default)]
pub(crate) struct Modules {
    list: Vec<Module>,
    /// The mappings that this was made from.
    made_from: Vec<Mapping>,
    /// The unwind tables of all modules, read when first needed.
    pub(super) tables: OnceLock<Arc<Tables>>,
    /// What could not be had, for the answer's notes.
    pub(crate) notes: Vec<String>,
}

impl Modules {
    /// Finds the modules of `snapshot`. Costs one `open` and one `mmap` for each file that `earlier` does
    /// not have yet.
    pub(crate) fn of(snapshot: &dyn Snapshot, earlier: Option<&Arc<Self>>) -> Arc<Self> {
        let code: Vec<_> = snapshot.mappings().iter().filter(|m| m.execute && m.path.is_some()).collect();
        if let Some(same) = earlier.filter(|e| e.made_from.iter().eq(code.iter().copied())) {
            return same.clone();
        }
        let mut modules = Self::default();
        for mapping in code {
            modules.made_from.push(mapping.clone());
            let Some(path) = &mapping.path else { continue };
            if modules.list.iter().any(|m| m.range.contains(&mapping.range.start)) {
                continue;
            }
            if modules.list.len() >= MAX_MODULES {
                modules.notes.push(format!("only the first {MAX_MODULES} libraries were looked at"));
                break;
            }
            let known = earlier
                .and_then(|e| e.list.iter().find(|m| m.path == *path))
                .map(|m| m.object.clone())
                .and_then(|object| place(snapshot, mapping, object, path));
            if let Some(module) = known.or_else(|| load(snapshot, mapping, path)) {
                modules.list.push(module);
            } else if !is_kernels(path) {
                let name = path.display();
                modules.notes.push(format!(
                    "{name} cannot be read: its frames have no names, and stacks may end in it"
                ));
            }
        }
        modules.list.sort_by_key(|m| m.range.start);
        Arc::new(modules)
    }

    /// Ordered by address.
    pub(crate) fn list(&self) -> &[Module] {
        &self.list
    }

    /// The module that holds `address`.
    pub(crate) fn find(&self, address: Address) -> Option<&Module> {
        let after = self.list.partition_point(|m| m.range.start <= address);
        self.list.get(after.checked_sub(1)?).filter(|m| m.range.contains(&address))
    }
}

/// `[vdso]`, `[vsyscall]`, `[heap]`.
fn is_kernels(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(b"[")
}

fn load(snapshot: &dyn Snapshot, mapping: &Mapping, path: &Path) -> Option<Module> {
    let from_file = |file: &Path| {
        let object = Arc::new(ObjectFile::open(file, Access::Map)?);
        place(snapshot, mapping, object, path)
    };
    if !is_kernels(path) {
        if let Some(module) = from_file(path) {
            return Some(module);
        }
        // Deleted or replaced since: for our own executable the kernel still has it. `place` sees to it
        // that it is the right one.
        if let Some(module) = from_file(Path::new("/proc/self/exe")) {
            return Some(module);
        }
    }
    let object = Arc::new(ObjectFile::parse(from_memory(snapshot, mapping)?)?);
    place(snapshot, mapping, object, path)
}

/// Where `object` lies in memory, if it is what `mapping` maps.
fn place(snapshot: &dyn Snapshot, mapping: &Mapping, object: Arc<ObjectFile>, path: &Path) -> Option<Module> {
    let bias = bias(mapping, &object)?;
    let span = object.span()?;
    let first = object.loads().iter().find(|l| l.offset == FileOffset::default())?;
    let expected = object.first_bytes(first.file_size.min(COMPARED as u64))?;
    let mut there = [0; COMPARED];
    let there = there.get_mut(..expected.len())?;
    if snapshot.read(bias.process_address(first.address), there) < expected.len() || there != &*expected {
        return None;
    }
    let range = bias.process_range(&span);
    if range.start >= range.end || !range.contains(&mapping.range.start) {
        return None;
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned();
    let system = is_kernels(path)
        || ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/usr/libexec/"]
            .iter()
            .any(|d| path.starts_with(d));
    Some(Module { path: path.to_owned(), name, range, bias, object, system })
}

/// The difference between memory and the file, from the segment with code that `mapping` begins with.
fn bias(mapping: &Mapping, object: &ObjectFile) -> Option<LoadBias> {
    // The kernel maps whole pages, so that a mapping begins at the start of its segment's first page; after
    // an `mprotect`, or in pieces of a core, it may begin further on.
    let from_page = |l: &&super::object_file::Load| {
        let end = l.offset.saturating_add(l.file_size);
        l.execute && mapping.offset < end && l.offset < mapping.offset.saturating_add(mapping.size())
    };
    Some(object.loads().iter().rfind(from_page)?.bias_in(mapping))
}

/// The file as far as memory still has it: everything at its offset, without the section table.
fn from_memory(snapshot: &dyn Snapshot, code: &Mapping) -> Option<SharedBytes> {
    let base = code.range.start.checked_sub(code.offset.get())?;
    let mut image = Vec::new();
    // The vDSO is one mapping without offsets.
    let parts = snapshot.mappings().iter().filter(|m| m.path == code.path && !m.write && m.read);
    for part in parts {
        let Some(size) = usize::try_from(part.size()).ok() else { continue };
        let Some(offset) = usize::try_from(part.offset.get()).ok() else { continue };
        let Some(end) = offset.checked_add(size).filter(|&end| end <= MAX_IMAGE) else { continue };
        // Delouse's own mappings of the same file are elsewhere and hold the same; one of another module
        // with the same path does not.
        if part.range.start.get().abs_diff(base.get()) > MAX_IMAGE as u64 {
            continue;
        }
        if image.len() < end {
            memory_budget::check(Amount::filled(end as u64)).ok()?;
            image.resize(end, 0);
        }
        snapshot.read(part.range.start, image.get_mut(offset..end)?);
    }
    (!image.is_empty()).then(|| SharedBytes::new(image))
}
