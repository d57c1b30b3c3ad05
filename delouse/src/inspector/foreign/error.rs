//! Why there is no answer about another program.

use std::path::PathBuf;

use crate::debuginfo::image::ImageError;
use crate::inspector::target::TargetError;

/// Why there is no answer about a target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ForeignError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("cannot read the executable {}: {error}", path.display())]
    Executable { path: PathBuf, error: ImageError },
    #[error(
        "{} is not the program of this core file: give the executable that ran, of the same build",
        .0.display()
    )]
    OtherProgram(PathBuf),
    #[error(
        "{} is not a Rust program: delouse reads the tasks of programs that use tokio (delouse threads shows the threads of \
         any program)",
        .0.display()
    )]
    NotRust(PathBuf),
    #[error(
        "{} is stripped: without symbols and debug information its tasks cannot be read. Build with `debug = \"full\"` and \
         `strip = false` in the profile, or name a file with its debug information: --debug-file PATH",
        .0.display()
    )]
    Stripped(PathBuf),
    #[error(
        "{} is a Rust program without tasks of tokio: nothing in it polls one (delouse threads shows its threads)",
        .0.display()
    )]
    NoTokio(PathBuf),
    #[error(
        "{} was built without type information, so that what its tasks wait for cannot be read: build with \
         `debug = \"full\"` in the profile, or name a file with its debug information: --debug-file PATH",
        .0.display()
    )]
    NoTypes(PathBuf),
}

impl ForeignError {
    /// Whether the program has ended, so that there will be no answer later either.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Self::Target(error) if error.has_ended())
    }
}
