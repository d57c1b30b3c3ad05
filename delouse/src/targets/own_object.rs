//! The file that delouse's own code was loaded from: the executable, or a shared library that contains a Rust program, such
//! as an extension module of Python.

use std::io;
use std::path::{Path, PathBuf};

use crate::snapshot::Address;

/// The kernel's link to the executable. It opens the file that runs, even if it was removed or replaced.
const EXECUTABLE: &str = "/proc/self/exe";
/// The kernel appends this to the path of a file that was removed or replaced.
const DELETED: &str = " (deleted)";

/// A file that is mapped into this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnObject {
    /// The path to open: the kernel's link for the executable.
    pub(crate) opened: PathBuf,
    /// Its path in the list of mappings.
    pub(crate) mapped: PathBuf,
    /// Whether it is a shared library.
    pub(crate) is_library: bool,
}

impl OwnObject {
    /// Finds the file.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub(crate) fn find() -> io::Result<Self> {
        let executable = std::fs::read_link(EXECUTABLE)?;
        let here = Address::new(Self::find as *const () as u64);
        // If mappings cannot be listed, assume that it is the executable.
        let library = super::own_mappings()
            .unwrap_or_default()
            .into_iter()
            .find(|mapping| mapping.range.contains(&here))
            .and_then(|mapping| mapping.path)
            .filter(|path| *path != executable);
        Ok(match library {
            Some(path) => Self { opened: path.clone(), mapped: path, is_library: true },
            None => Self { opened: EXECUTABLE.into(), mapped: executable, is_library: false },
        })
    }

    /// The path that the file had when it was loaded, and whether it was removed or replaced since.
    pub(crate) fn name(&self) -> (&Path, bool) {
        let gone = self.mapped.to_str().and_then(|path| path.strip_suffix(DELETED));
        gone.map_or((self.mapped.as_path(), false), |path| (Path::new(path), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_an_executable() {
        let own = OwnObject::find().unwrap();
        assert_eq!(own.mapped, std::env::current_exe().unwrap());
        assert_eq!((own.opened.as_path(), own.is_library), (Path::new(EXECUTABLE), false));
        assert_eq!(own.name(), (own.mapped.as_path(), false));
        let gone = OwnObject { mapped: "/srv/app/plugin.so (deleted)".into(), ..own };
        assert_eq!(gone.name(), (Path::new("/srv/app/plugin.so"), true));
    }
}
