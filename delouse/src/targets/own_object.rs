//! The file that delouse's own code was loaded from: the executable, or a shared library that contains a Rust program, such
//! as an extension module of Python.

use std::io;

use super::program_file::ProgramFile;
use crate::snapshot::Address;

/// The kernel's link to the executable. It opens the file that runs, even if it was removed or replaced.
const EXECUTABLE: &str = "/proc/self/exe";

/// Finds the file.
///
/// # Errors
/// If `/proc` cannot be read.
pub(crate) fn own_object() -> io::Result<ProgramFile> {
    let executable = std::fs::read_link(EXECUTABLE)?;
    let here = Address::new(own_object as *const () as u64);
    // If mappings cannot be listed, assume that it is the executable.
    let library = super::own_mappings()
        .unwrap_or_default()
        .into_iter()
        .find(|mapping| mapping.range.contains(&here))
        .and_then(|mapping| mapping.path)
        .filter(|path| *path != executable);
    Ok(match library {
        Some(path) => ProgramFile::mapped_at(&path),
        None => ProgramFile { opened: EXECUTABLE.into(), ..ProgramFile::mapped_at(&executable) },
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_test_program_is_an_executable() {
        let own = own_object().unwrap();
        assert_eq!(own.mapped, std::env::current_exe().unwrap());
        assert_eq!(own.opened.as_path(), Path::new(EXECUTABLE), "not the path of a library");
        assert_eq!(own.name(), (own.mapped.as_path(), false));
        let gone = ProgramFile::mapped_at(Path::new("/srv/app/plugin.so (deleted)"));
        assert_eq!(gone.name(), (Path::new("/srv/app/plugin.so"), true));
    }
}
