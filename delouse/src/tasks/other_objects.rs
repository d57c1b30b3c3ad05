//! Further files of the process that hold a tokio of their own: a plug-in beside a Rust program, the libraries of a
//! Python process. Each has its own types, so each is read by itself.

use std::path::{Path, PathBuf};

use super::{Listing, Options, Task, examine};
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::snapshot::{Mapping, Snapshot};

/// The most files that are searched: a Python process has some hundred libraries.
const MAX_FILES: usize = 1 << 10;
/// The most files whose tasks are read: each costs as much as a separate program.
const MAX_READ: usize = 8;

/// The files that hold a tokio, by their names in the list of mappings; remembered while the same files are mapped.
#[derive(Debug, Default)]
pub(crate) struct OtherObjects {
    mapped: Vec<PathBuf>,
    with_tokio: Vec<PathBuf>,
}

impl OtherObjects {
    /// Finds them in `snapshot`, without the file `own`. Reads the symbol tables of files that were not mapped before.
    pub(crate) fn find(&mut self, own: &Path, snapshot: &dyn Snapshot) -> &[PathBuf] {
        let mapped = code_files(own, snapshot.mappings());
        if mapped != self.mapped {
            self.with_tokio =
                mapped.iter().filter(|path| holds_tokio(path)).take(MAX_READ).cloned().collect();
            self.mapped = mapped;
        }
        &self.with_tokio
    }
}

/// The files that code is mapped from, without `own`.
fn code_files(own: &Path, mappings: &[Mapping]) -> Vec<PathBuf> {
    let code = mappings.iter().filter(|mapping| mapping.execute && mapping.inode != 0);
    let mut files: Vec<PathBuf> = code.filter_map(|mapping| mapping.path.clone()).collect();
    files.retain(|path| path != own);
    files.sort_unstable();
    files.dedup();
    files.truncate(MAX_FILES);
    files
}

/// Whether the symbols of a file name tokio's function that polls tasks.
pub(crate) fn holds_tokio(path: &Path) -> bool {
    Image::open_for_symbols(path).is_ok_and(|image| have_tokio(&Types::open(&image)))
}

/// The same of a file whose types are known.
pub(crate) fn have_tokio(types: &Types<'_>) -> bool {
    !super::scan::polls(types).is_empty()
}

/// Adds the tasks of the runtimes in the file at `path` to `listing`.
pub(crate) fn add(path: &Path, snapshot: &dyn Snapshot, options: &Options, listing: &mut Listing) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(other) = list(path, snapshot, options) else {
        return listing.notes.push(format!("{name} cannot be read: its tasks are missing"));
    };
    listing.tasks.extend(other.tasks.into_iter().map(|task| {
        let runtime =
            task.runtime.as_deref().map_or_else(|| name.to_string(), |of| format!("{of} of {name}"));
        Task { runtime: Some(runtime.into()), ..task }
    }));
    listing.tasks.sort_by_key(|task| task.id);
    listing.notes.extend(other.notes.into_iter().map(|note| format!("{name}: {note}")));
}

fn list(path: &Path, snapshot: &dyn Snapshot, options: &Options) -> Option<Listing> {
    let image = Image::open(path).ok()?;
    let bias = image.bias(path, snapshot.mappings())?;
    let options = Options { bias, places: false, ..options.clone() };
    Some(examine(snapshot, &Types::open(&image), &[], &options, |examination| examination.listing))
}

/// The note for an answer that was read from one file only.
pub(crate) fn left_out(others: &[PathBuf]) -> Option<String> {
    let names: Vec<_> = others.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy())).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} holds a tokio of its own: its tasks are listed by /stacktrace/tokio, and are not part of this answer",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Address, FileOffset};

    #[test]
    fn files_with_code_are_told_apart() {
        let mapping = |path: &str, execute, inode| Mapping {
            range: Address::range(0x1000..0x2000),
            read: true,
            write: false,
            execute,
            shared: false,
            offset: FileOffset::default(),
            device: 1,
            inode,
            path: Some(path.into()),
        };
        let mappings = [
            mapping("/app", true, 1),
            mapping("/b.so", true, 2),
            mapping("/a.so", true, 3),
            mapping("/a.so", true, 3),
            mapping("/data", false, 4),
            mapping("[vdso]", true, 0),
        ];
        assert_eq!(code_files(Path::new("/app"), &mappings), [PathBuf::from("/a.so"), "/b.so".into()]);
        // With few features, no other test of this program polls a task.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { tokio::spawn(async {}).await }).unwrap();
        assert!(holds_tokio(&std::env::current_exe().unwrap()));
        assert!(!holds_tokio(Path::new("/bin/sh")) && !holds_tokio(Path::new("/nowhere")));
    }

    #[test]
    fn an_answer_from_one_file_names_the_others() {
        assert_eq!(left_out(&[]), None);
        let note = left_out(&["/srv/liba.so".into(), "/srv/libb.so".into()]).unwrap();
        assert!(note.starts_with("liba.so, libb.so holds"), "{note}");
    }
}
