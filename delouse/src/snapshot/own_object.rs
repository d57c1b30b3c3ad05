//! The file that delouse's own code was loaded from: the executable, or a shared library that holds a whole Rust program,
//! as an extension module of Python does.

use std::io;
use std::path::{Path, PathBuf};

/// The kernel's link to the executable: it leads to the file that runs, even where another one has taken its place.
const EXECUTABLE: &str = "/proc/self/exe";
/// What the kernel adds to the name of a file that is no longer there.
const DELETED: &str = " (deleted)";

/// A file that is mapped into this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnObject {
    /// What to open: a link of the kernel's where there is one.
    pub(crate) opened: PathBuf,
    /// Its name in the list of mappings.
    pub(crate) mapped: PathBuf,
    /// Whether it is a shared library of another program.
    pub(crate) is_library: bool,
}

impl OwnObject {
    /// Finds the file.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub(crate) fn find() -> io::Result<Self> {
        let executable = std::fs::read_link(EXECUTABLE)?;
        let here = Self::find as *const () as u64;
        // Where mappings cannot be listed, libraries are not known either.
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

    /// The name that the file has, or had; and whether it was replaced or removed since it was loaded.
    pub(crate) fn name(&self) -> (&Path, bool) {
        let gone = self.mapped.to_str().and_then(|path| path.strip_suffix(DELETED));
        gone.map_or((self.mapped.as_path(), false), |path| (Path::new(path), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_no_library() {
        let own = OwnObject::find().unwrap();
        assert_eq!(own.mapped, std::env::current_exe().unwrap());
        assert_eq!((own.opened.as_path(), own.is_library), (Path::new(EXECUTABLE), false));
        assert_eq!(own.name(), (own.mapped.as_path(), false));
        let gone = OwnObject { mapped: "/srv/app/plugin.so (deleted)".into(), ..own };
        assert_eq!(gone.name(), (Path::new("/srv/app/plugin.so"), true));
    }
}
