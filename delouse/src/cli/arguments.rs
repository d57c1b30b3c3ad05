//! The arguments of the command.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use serde::de::DeserializeOwned;

use crate::report::formats::{FORMATS, Format, JSON, TEXT};
use crate::tasks::{TaskKind, TaskState};

const TEMPLATE: &str = "\
{about}

Examples:
  delouse diagnose 1234                  what is wrong with process 1234
  delouse diagnose                       … with the program that serves http://127.0.0.1:7132
  delouse tasks 1234 --match handle      tasks with `handle` in their stacks
  delouse threads core.1234              the threads in a core file
  delouse waits ./app core.1234 --format dot | dot -Tsvg >waits.svg
  delouse serve 1234                     the server of #[delouse::main] for any process
  delouse watch 1234 --every 30s         prints each finding once, when it comes and when it is gone
  delouse run -- cargo test              Ctrl-\\ prints what hangs

Usage: delouse COMMAND [TARGET] [OPTIONS]

{subcommands}

A TARGET is one of
  1234                      a process; needs the right to trace it (sudo, or the same user)
  CORE, or EXECUTABLE CORE  a core file of gdb, of the kernel, of systemd or of delouse
  http://127.0.0.1:7132     a program with #[delouse::main]; this address if no target is given

Exit status: 0 nothing was found, 1 delouse could not look (the reason is on stderr), 2 findings.
`delouse COMMAND --help` lists the options of a command.
";

/// What every task and every thread of an async Rust program is doing, and what is wrong with it.
#[derive(Parser)]
#[command(name = "delouse", version, help_template = TEMPLATE, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// What is wrong, worst first: deadlocks, leaks, blocked workers, tasks that nothing will wake
    #[command(visible_alias = "diagnosis")]
    Diagnose {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        output: Output,
        /// Also report groups of tasks that only grow during this time, in seconds
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: Option<u64>,
    },
    /// Every task: its async stack, its state, what it waits for
    Tasks {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        selection: Selection,
    },
    /// Every thread: its stack, its state, the task that it polls
    Threads {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        output: Output,
    },
    /// What each task waits for, and which task holds it
    Waits {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        output: Output,
    },
    /// A core file of a running program, which continues to run
    Core {
        #[command(flatten)]
        subject: Subject,
        /// The file to write; by default core.PID
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// How a program was built, and how good the answers are for it
    Elf {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        output: Output,
    },
    /// The server and its page for another process or a core file, until Ctrl-C
    Serve {
        #[command(flatten)]
        subject: Subject,
        /// The address to listen on, or a port alone; by default 127.0.0.1:7132, or a free port if that is in use. Any
        /// address that is not loopback needs a token, in the variable DELOUSE_TOKEN
        #[arg(long, value_name = "ADDR")]
        bind: Option<String>,
    },
    /// Looks from time to time, and prints each finding once: until Ctrl-C, or until the program ends
    Watch {
        #[command(flatten)]
        subject: Subject,
        /// The time between looks, such as 30s, 500ms or 2m; one second at least
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
        every: Duration,
        /// Also write each new finding to this directory, as text and as JSON
        #[arg(long, value_name = "PATH")]
        dir: Option<PathBuf>,
    },
    /// Two saved JSON answers: what came, what went, what has waited through both
    Diff {
        /// The earlier answer, of `tasks`, `waits` or `diagnose`
        before: PathBuf,
        /// The later answer of the same command
        after: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Starts a program as a child; Ctrl-\ prints its diagnosis
    Run {
        /// Also print the diagnosis once the child has used no processor time for this long, such as 30s
        #[arg(long, value_name = "TIME", value_parser = duration)]
        hang_after: Option<Duration>,
        #[command(flatten)]
        capture: Capturing,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
        program: Vec<std::ffi::OsString>,
    },
    /// Completions for a shell, on stdout
    #[command(hide = true)]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// The man page, on stdout
    #[command(hide = true)]
    Man,
}

/// What to look at.
#[derive(Args)]
pub(super) struct Subject {
    /// PID, CORE, EXECUTABLE CORE, or http://127.0.0.1:7132 (the default)
    #[arg(num_args = 0..=2, value_name = "TARGET")]
    pub(super) targets: Vec<String>,
    /// The executable that ran, if it is elsewhere than the core file or the process says
    #[arg(long, value_name = "PATH")]
    pub(super) exe: Option<PathBuf>,
    #[command(flatten)]
    pub(super) capture: Capturing,
}

/// How a process is captured.
#[derive(Args)]
pub(super) struct Capturing {
    /// Read a process while it runs, without stopping it: parts of the answer may not agree
    #[arg(long)]
    pub(super) no_pause: bool,
    /// The longest time for which a process may be stopped, in milliseconds; 50 if not given
    #[arg(long, value_name = "MS")]
    pub(super) max_pause: Option<u64>,
    /// A file with the debug information of a stripped executable
    #[arg(long, value_name = "PATH")]
    pub(super) debug_file: Option<PathBuf>,
    /// Fetch the debug information of a stripped executable from the servers in DEBUGINFOD_URLS (plain http), into the
    /// cache of debuginfod
    #[arg(long, conflicts_with = "debug_file")]
    pub(super) debuginfod: bool,
}

impl Capturing {
    /// Where debug information is, that the executable lacks.
    pub(super) fn debug_source(&self) -> Option<DebugSource> {
        let fetched = self.debuginfod.then_some(DebugSource::Debuginfod);
        self.debug_file.clone().map(DebugSource::File).or(fetched)
    }
}

/// Where debug information is, that an executable lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DebugSource {
    File(PathBuf),
    Debuginfod,
}

/// How an answer is printed.
#[derive(Args)]
pub(super) struct Output {
    /// The format of the answer
    #[arg(long, value_parser = format_of_name(), default_value = TEXT.name)]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Show every frame; otherwise those of libraries are folded
    #[arg(long)]
    pub(super) full: bool,
}

impl Output {
    pub(super) fn format(&self) -> Format {
        if self.json { JSON } else { self.format }
    }
}

/// Parses the name of a format.
fn format_of_name() -> impl TypedValueParser<Value = Format> {
    let names = FORMATS.map(|format| PossibleValue::new(format.name).help(format.about));
    PossibleValuesParser::new(names)
        .map(|name| FORMATS.into_iter().find(|format| format.name == name).unwrap_or(TEXT))
}

/// Which tasks to list.
#[derive(Args)]
pub(super) struct Selection {
    /// Only the tasks with these ids: 17, or 17,18; 0 is the main future
    #[arg(long, value_name = "IDS")]
    pub(super) task: Option<String>,
    /// Only tasks in this state
    #[arg(long, value_parser = named::<TaskState>(&["idle", "scheduled", "running", "complete"]))]
    pub(super) state: Option<TaskState>,
    /// Only tasks of this kind
    #[arg(long, value_parser = named::<TaskKind>(&["task", "main", "local", "blocking"]))]
    pub(super) kind: Option<TaskKind>,
    /// Only tasks with this text in a function, a place or a resource of their stacks
    #[arg(long = "match", value_name = "TEXT")]
    pub(super) text: Option<String>,
}

/// Parses one of `names`, which are those of JSON.
fn named<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names)
        .try_map(|name| serde_json::from_value::<T>(serde_json::Value::String(name)))
}

/// Parses `30s`, `500ms`, `2m`; a number alone is in seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "write a time such as 30s, 500ms or 2m".to_owned())?;
    if number == 0 {
        return Err("write a time above 0, such as 30s".to_owned());
    }
    match text.get(digits.len()..) {
        Some("" | "s") => Ok(Duration::from_secs(number)),
        Some("ms") => Ok(Duration::from_millis(number)),
        Some("m" | "min") => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("write a time such as 30s, 500ms or 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("7", 7_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1h", "-1s", "1.5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
