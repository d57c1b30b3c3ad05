//! What the arguments name: a process, a core file, or a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::{Capturing, Subject};
use super::error::CliError;
use super::file_kind::{FileKind, kind};
use super::local::Local;
use super::progress::Progress;
use super::remote::Server;
use crate::inspector::target::Target;
use crate::targets::other_process::AttachOptions;

/// The address of a server if none is given: the default of `#[delouse::main]`.
const DEFAULT: &str = "http://127.0.0.1:7132";

/// How long a process may be stopped, in milliseconds.
const MAX_PAUSE: u64 = 50;

/// Where the answers come from.
pub(super) enum Place {
    /// This command reads the program.
    Local(Local),
    /// The program's own server does.
    Remote(Server),
}

/// Opens what the arguments name.
pub(super) fn parse(subject: Subject) -> Result<Place, CliError> {
    let Subject { targets, exe, capture } = subject;
    match targets.as_slice() {
        [] => remote(None, &capture, exe.as_deref()),
        [only] if is_address(only) => remote(Some(only), &capture, exe.as_deref()),
        [only] if is_number(only) => {
            let pid =
                only.parse().map_err(|_| CliError::Usage(format!("{only} is too large for a process id")))?;
            process(pid, exe, &capture)
        }
        [only] => core(Path::new(only), exe, &capture),
        [one, other] => {
            let (one, other) = (PathBuf::from(one), PathBuf::from(other));
            match (kind(&one)?, kind(&other)?) {
                (_, FileKind::Core) => core(&other, Some(one), &capture),
                (FileKind::Core, _) => core(&one, Some(other), &capture),
                _ => Err(CliError::Usage(format!(
                    "neither {} nor {} is a core file: give EXECUTABLE CORE",
                    one.display(),
                    other.display()
                ))),
            }
        }
        _ => Err(CliError::Usage("too many targets: give one, or EXECUTABLE CORE".to_owned())),
    }
}

/// The process `pid` as a place.
pub(super) fn process(pid: u32, exe: Option<PathBuf>, capture: &Capturing) -> Result<Place, CliError> {
    Ok(Place::Local(Local::new(Target::process(pid, options(capture)), exe, capture.debug_source())))
}

fn core(path: &Path, exe: Option<PathBuf>, capture: &Capturing) -> Result<Place, CliError> {
    if kind(path)? == FileKind::Program {
        return Err(CliError::Usage(format!(
            "{0} is an executable, not a core file: give the number of a process that runs it, or a core file of it \
             (delouse elf {0} describes the file)",
            path.display()
        )));
    }
    let progress = Progress::start(format!("opening {}", path.display()));
    let target = Target::core(path, exe.as_deref())?;
    drop(progress);
    Ok(Place::Local(Local::new(target, exe, capture.debug_source())))
}

fn remote(url: Option<&str>, capture: &Capturing, exe: Option<&Path>) -> Result<Place, CliError> {
    let shown = url.unwrap_or(DEFAULT);
    let given = [
        ("--no-pause", capture.no_pause),
        ("--max-pause", capture.max_pause.is_some()),
        ("--debug-file", capture.debug_file.is_some()),
        ("--debuginfod", capture.debuginfod),
        ("--exe", exe.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        return Err(CliError::Usage(format!(
            "{option} is for processes and core files that this command reads itself; {shown} is a server, which has its own \
             settings: give a process id to read the program from outside"
        )));
    }
    Ok(Place::Remote(Server::new(shown, url.is_none())?))
}

fn options(capture: &Capturing) -> AttachOptions {
    AttachOptions {
        pause: !capture.no_pause,
        max_pause: Duration::from_millis(capture.max_pause.unwrap_or(MAX_PAUSE)),
    }
}

/// Whether a target is the address of a server: a URL, or `host:port` where no file has that name.
fn is_address(target: &str) -> bool {
    let has_port = || {
        let port = target.rsplit_once(':').map(|(_, port)| port);
        port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    target.contains("://") || (has_port() && !Path::new(target).exists())
}

fn is_number(target: &str) -> bool {
    !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_files_and_numbers() {
        for address in ["http://127.0.0.1:7132", "https://host", "localhost:7132", "[::1]:80"] {
            assert!(is_address(address), "{address}");
        }
        for other in ["1234", "core.1234", "./app", "", "a:", "a:b"] {
            assert!(!is_address(other), "{other}");
        }
        assert!(is_number("1234") && !is_number("12a") && !is_number(""));
    }
}
