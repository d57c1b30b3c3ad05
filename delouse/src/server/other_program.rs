//! What endpoints answer that only have a meaning inside of the program, where the server inspects another one.

use std::path::Path;

use super::error::ApiError;
use crate::inspector::inspect::Inspected;

/// For `/coredump`, which ends the program.
pub(super) fn refuse_coredump(inspected: &Inspected) -> Result<(), ApiError> {
    refuse(inspected, |pid| {
        format!(
            "process {pid} is read from outside, and is not ended by this server: `kill -ABRT {pid}` ends it with a core \
             dump, if its limits allow one (ulimit -c)"
        )
    })
}

/// For `/core` of a core file.
pub(super) fn refuse_core_of_core(inspected: &Inspected) -> Result<(), ApiError> {
    match inspected {
        Inspected::Core(path) => Err(has_ended(path)),
        Inspected::ThisProcess | Inspected::Process(_) => Ok(()),
    }
}

/// For the cost of a core file.
pub(super) fn refuse_estimate(inspected: &Inspected) -> Result<(), ApiError> {
    refuse(inspected, |pid| {
        format!(
            "the cost of a core file of process {pid} is not estimated beforehand: if the predicted pause is above \
             --max-pause, /core reads the memory without stopping the process, and says so"
        )
    })
}

/// For `/huge-pages`, which changes the page tables of the program.
pub(super) fn refuse_huge_pages(inspected: &Inspected) -> Result<(), ApiError> {
    refuse(inspected, |pid| {
        format!(
            "process {pid} is read from outside, and its memory is not changed: only a program's own server \
             (#[delouse::main]) joins its memory into huge pages"
        )
    })
}

fn refuse(inspected: &Inspected, of_process: impl FnOnce(u32) -> String) -> Result<(), ApiError> {
    match inspected {
        Inspected::ThisProcess => Ok(()),
        Inspected::Process(pid) => Err(ApiError::OnlyFromInside(of_process(*pid))),
        Inspected::Core(path) => Err(has_ended(path)),
    }
}

fn has_ended(path: &Path) -> ApiError {
    let path = path.display();
    ApiError::OnlyFromInside(format!("this server answers about the core file {path}: its program has ended"))
}
