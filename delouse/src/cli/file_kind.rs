//! What kind of file a target is.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::error::CliError;

/// What kind of file a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Core,
    Program,
    Other,
}

/// What kind of file is at `path`, by its first bytes.
pub(super) fn kind(path: &Path) -> Result<FileKind, CliError> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return CliError::Usage(format!(
                "{} is no file: a target is a process id, a core file or the address of a server",
                path.display()
            ));
        }
        CliError::File { path: path.to_owned(), error }
    };
    let mut start = [0; 18];
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(CliError::Usage(format!("{} is not a regular file", path.display())));
    }
    let mut file = file.take(start.len() as u64);
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(failed)? {
            0 => break,
            more => filled += more,
        }
    }
    // `e_type` follows the 16 bytes of `e_ident`: ET_EXEC, ET_DYN, ET_CORE.
    Ok(match start {
        [0x7f, b'E', b'L', b'F', .., 4, 0] => FileKind::Core,
        [0x7f, b'E', b'L', b'F', .., 2 | 3, 0] => FileKind::Program,
        // systemd compresses core files with zstd. Nothing else of this format is of use here.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x1f, 0x8b, ..] => FileKind::Core,
        _ => FileKind::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_a_program() {
        assert_eq!(kind(&std::env::current_exe().unwrap()).unwrap(), FileKind::Program);
        assert_eq!(kind(Path::new("/etc/passwd")).unwrap(), FileKind::Other);
        assert!(kind(Path::new("/")).unwrap_err().to_string().contains("not a regular file"));
        assert!(kind(Path::new("/no/where")).unwrap_err().to_string().contains("is no file"));
    }
}
