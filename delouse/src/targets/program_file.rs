//! The file that a program was loaded from: an executable, or a shared library that contains a Rust program.

use std::path::{Path, PathBuf};

/// The kernel appends this to the path of a file that was removed or replaced.
const DELETED: &str = " (deleted)";

/// A file with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramFile {
    /// The path to open.
    pub(crate) opened: PathBuf,
    /// Its path in the list of mappings.
    pub(crate) mapped: PathBuf,
    /// The path that it was started from, for messages.
    pub(crate) name: PathBuf,
}

impl ProgramFile {
    /// The file at a path under which it is mapped, too.
    pub(crate) fn mapped_at(path: &Path) -> Self {
        Self { opened: path.to_owned(), mapped: path.to_owned(), name: path.to_owned() }
    }

    /// The file at a path that a user has given, which may lead over links.
    pub(crate) fn given(path: &Path) -> Self {
        Self { mapped: path.canonicalize().unwrap_or_else(|_| path.to_owned()), ..Self::mapped_at(path) }
    }

    /// The path that the file had when it was loaded, and whether it was removed or replaced since.
    pub(crate) fn name(&self) -> (&Path, bool) {
        let gone = self.name.to_str().and_then(|path| path.strip_suffix(DELETED));
        gone.map_or((self.name.as_path(), false), |path| (Path::new(path), true))
    }
}
