//! What endpoints answer that only have a meaning inside of the program, where the server inspects another one.

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

/// For `/core`.
pub(super) fn refuse_core(inspected: &Inspected) -> Result<(), ApiError> {
    refuse(inspected, |pid| {
        format!(
            "a core file of another process is not served: `gcore -o core {pid}` (of gdb) writes one, and stops the process \
             meanwhile"
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
    Err(ApiError::OnlyFromInside(match inspected {
        Inspected::ThisProcess => return Ok(()),
        Inspected::Process(pid) => of_process(*pid),
        Inspected::Core(path) => {
            format!("this server answers about the core file {}: its program has ended", path.display())
        }
    }))
}
