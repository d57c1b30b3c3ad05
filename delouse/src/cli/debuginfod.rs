//! Debug information from debuginfod servers, which are asked only if the user says so (`--debuginfod`).
//!
//! The protocol and the cache are those of elfutils (debuginfod(8), debuginfod_find_debuginfo(3)), so that what
//! `debuginfod-find` or gdb has fetched is not fetched again. Plain HTTP only: with TLS, this command would need a second
//! implementation of it, for servers that `debuginfod-find` can ask as well.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;

use super::error::CliError;
use super::progress::Progress;

/// The servers, separated by spaces.
const SERVERS: &str = "DEBUGINFOD_URLS";
/// For the connection.
const CONNECT: Duration = Duration::from_secs(10);
/// For the beginning of an answer: a server may extract the file from a package first. elfutils waits for as long.
const ANSWER: Duration = Duration::from_secs(90);
/// The longest file that is fetched.
const MOST: u64 = 16 << 30;

/// The path of the debug information of the build with this id: from the cache, or from the first server that has it.
///
/// # Errors
/// If there is no server that can be asked, or if none has it.
pub(super) fn fetch(build_id: &str) -> Result<PathBuf, CliError> {
    let urls = env::var(SERVERS).unwrap_or_default();
    let directory = cache()?.join(build_id);
    let path = directory.join("debuginfo");
    // An empty file records that no server had it (debuginfod-client.c): they are asked again.
    if fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() > 0) {
        return Ok(path);
    }
    let mut reasons = Vec::new();
    for url in urls.split_whitespace().map(|url| url.trim_end_matches('/')) {
        if !url.starts_with("http://") {
            reasons.push(format!("{url} is not plain http, which is all that this command speaks"));
            continue;
        }
        let _progress = Progress::start(format!("fetching debug information from {url}"));
        match download(url, build_id, &directory, &path) {
            Ok(()) => return Ok(path),
            Err(reason) => reasons.push(format!("{url}: {reason}")),
        }
    }
    Err(CliError::Usage(if reasons.is_empty() {
        format!(
            "--debuginfod asks the servers in the variable {SERVERS}, which has none: set it to their addresses"
        )
    } else {
        format!(
            "no server has the debug information of build-id {build_id}: {}; `debuginfod-find debuginfo {build_id}` can ask \
             others, and --debug-file names what it has found",
            reasons.join("; ")
        )
    }))
}

/// The directory of the cache (debuginfod_find_debuginfo(3), "CACHE").
fn cache() -> Result<PathBuf, CliError> {
    let of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let below = |directory: PathBuf| directory.join("debuginfod_client");
    of("DEBUGINFOD_CACHE_PATH")
        .or_else(|| of("XDG_CACHE_HOME").map(below))
        .or_else(|| of("HOME").map(|home| below(home.join(".cache"))))
        .ok_or_else(|| {
            CliError::Usage("--debuginfod needs a directory for files: set DEBUGINFOD_CACHE_PATH".to_owned())
        })
}

/// Fetches the file whole or not at all.
fn download(url: &str, build_id: &str, directory: &Path, path: &Path) -> Result<(), String> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER));
    let agent: Agent = config.build().into();
    let response =
        agent.get(format!("{url}/buildid/{build_id}/debuginfo")).call().map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status()));
    }
    let failed = |error: io::Error| error.to_string();
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let partial = directory.join(format!("debuginfo.{}", std::process::id()));
    let written =
        File::options().write(true).create_new(true).mode(0o600).open(&partial).and_then(|mut file| {
            let length = io::copy(&mut response.into_body().into_reader().take(MOST), &mut file)?;
            let too_long = || io::Error::other(format!("the answer is longer than {} GB", MOST >> 30));
            if length < MOST { fs::rename(&partial, path) } else { Err(too_long()) }
        });
    written.map_err(|error| {
        let _left = fs::remove_file(&partial);
        error.to_string()
    })
}
