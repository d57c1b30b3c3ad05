//! Which of delouse's answers the debug information allows, and what to add for better ones.

use super::model::{Answer, DebugInformation, DebugLevel, DebugLocation, Quality, UnwindTables};
use Quality::{Degraded, Good, Missing};

/// The settings, to be put word for word into Cargo.toml.
const FULL: &str = "[profile.release]\ndebug = \"full\"";
const FULL_UNSTRIPPED: &str = "[profile.release]\ndebug = \"full\"\nstrip = \"none\"";
const FULL_EVERYWHERE: &str =
    "[profile.release]\ndebug = \"full\"\n\n[profile.release.package.\"*\"]\ndebug = \"full\"";
const UNSPLIT: &str = "[profile.release]\ndebug = \"full\"\nsplit-debuginfo = \"off\"";

/// What each endpoint can tell.
pub(crate) fn answers(
    debug: &DebugInformation,
    tables: Option<&UnwindTables>,
    stripped: bool,
) -> Vec<Answer> {
    let setting = setting(debug, stripped);
    let answer = |endpoint: &str, quality, shows: &str| Answer {
        endpoint: endpoint.to_owned(),
        quality,
        shows: shows.to_owned(),
        setting: setting.clone().filter(|_| quality != Good),
    };
    // Without the table of symbols only the functions that other libraries may call have a name.
    let threads = match (debug.level, stripped) {
        (DebugLevel::Full, _) if lost_units(debug) => {
            (Degraded, "functions; lines only where units were found")
        }
        (DebugLevel::Full | DebugLevel::Limited | DebugLevel::LineTables, _) => {
            (Good, "functions, files and lines, inlined calls too")
        }
        (DebugLevel::None, false) => (Degraded, "functions, but neither files nor lines"),
        (DebugLevel::None, true) => (Missing, "addresses only"),
    };
    let types = match debug.level {
        DebugLevel::Full if lost_units(debug) => {
            Some((Degraded, "only what the split units that were found tell"))
        }
        DebugLevel::Full if tokio_untyped(debug) => {
            Some((Degraded, "may stop short: no types of tokio itself found (or it does not use tokio)"))
        }
        DebugLevel::Full => None,
        DebugLevel::Limited => Some((Degraded, "each task's outermost future by name, no async stack")),
        DebugLevel::LineTables => Some((Degraded, "task ids and states, no async stack")),
        DebugLevel::None => Some((Missing, "no tasks: their layout is not known")),
    };
    let tokio = types.unwrap_or((Good, "every task's async stack, and what it waits for"));
    // Holders are found by the same types.
    let waits = match tokio.0 {
        Good => (Good, "what waits for what, and what holds it"),
        less => (less, "no more than /stacktrace/tokio tells"),
    };
    let diagnosis = match (types, threads.0) {
        (None, Good) => (Good, "deadlocks, leaks, blocked workers, with the lines"),
        (Some((Missing, _)), _) => (Missing, "no tasks, so nothing that could be wrong with them"),
        _ => (Degraded, "what can be told without whole async stacks"),
    };
    let core = match debug.level {
        DebugLevel::Full if lost_units(debug) => (Degraded, "gdb shows what the split units found tell"),
        DebugLevel::Full => (Good, "gdb shows stacks, lines and variables"),
        DebugLevel::Limited | DebugLevel::LineTables => {
            (Degraded, "gdb shows stacks and lines, no variables")
        }
        DebugLevel::None => (Degraded, "a core is written, but gdb shows little"),
    };
    let threads = match threads {
        (Good, _) if tables.is_some_and(UnwindTables::is_incomplete) => (
            Degraded,
            "functions, files and lines; some functions have no unwind tables: where their instructions do not tell either, callers are marked as guesses",
        ),
        threads => threads,
    };
    [
        ("/diagnosis", diagnosis),
        ("/waits", waits),
        ("/stacktrace/tokio", tokio),
        ("/stacktrace/rust", threads),
        ("/core", core),
        ("/coredump", core),
    ]
    .into_iter()
    .map(|(endpoint, (quality, shows))| answer(endpoint, quality, shows))
    .collect()
}

/// Whether split units are somewhere else than where they were looked for.
fn lost_units(debug: &DebugInformation) -> bool {
    debug.split.as_ref().is_some_and(|split| split.found < split.units)
}

/// Whether tokio itself seems to have no types, as with `[profile.*.package."*"] debug = false`. Of other
/// crates small units without any type are common and harmless.
fn tokio_untyped(debug: &DebugInformation) -> bool {
    // An incremental build (tokio from a local path) names the root module only.
    let mut tokio = debug.crates.iter().filter(|c| c.name == "tokio" || c.name.ends_with("tokio/src/lib.rs"));
    !debug.sampled && !tokio.any(|c| c.level == DebugLevel::Full)
}

fn setting(debug: &DebugInformation, stripped: bool) -> Option<String> {
    if let Some(split) = debug.split.as_ref().filter(|split| split.found < split.units) {
        let place = split.missing.first().map_or("the .dwo files", String::as_str);
        return Some(format!("put {place} back, or build with:\n{UNSPLIT}"));
    }
    if debug.level == DebugLevel::Full {
        return tokio_untyped(debug).then(|| FULL_EVERYWHERE.to_owned());
    }
    if let Some(rejected) = debug.separate.as_ref().and_then(|s| s.rejected.first()) {
        return Some(format!(
            "put the debug file of this very build at {} ({}), or build with:\n{FULL_UNSTRIPPED}",
            rejected.path.display(),
            rejected.reason
        ));
    }
    let bare = stripped || debug.location == DebugLocation::None;
    Some(if bare { FULL_UNSTRIPPED } else { FULL }.to_owned())
}
