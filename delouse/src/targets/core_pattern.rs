//! Where the kernel will write a core file of this process, and what prevents it.
//!
//! Source: core(5) of the Linux manual pages, and `format_corename` in the kernel's fs/coredump.c.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit};
use schemars::JsonSchema;
use serde::Serialize;

use crate::debuginfo::separate::lossy;
use crate::host::limits;
use crate::host::proc_text::{decimal, size_field, status_field};
use crate::report::format::size;
use crate::report::formats::Renders;

/// The core file that a crash by `abort` will produce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct CorePlan {
    /// Where the core file is written.
    pub(crate) destination: Destination,
    /// Why it will not be written, or not completely, each with what to do. Empty if nothing prevents it.
    pub(crate) obstacles: Vec<String>,
    /// Other remarks.
    pub(crate) notes: Vec<String>,
    /// The command that opens the core file.
    pub(crate) open_with: String,
}

/// Where the kernel writes the core file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Destination {
    /// A file. Parts of the name that are not known before the crash are in angle brackets: `<time>`, `<host pid>`.
    File(
        #[serde(serialize_with = "lossy::path")]
        #[schemars(with = "String")]
        PathBuf,
    ),
    /// A program that the kernel starts and pipes the core file into.
    Handler(Handler),
    /// No core file is written.
    Nowhere,
}

/// A program named by `|` in the pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Handler {
    /// systemd-coredump: `coredumpctl` lists the core file.
    Systemd,
    /// Ubuntu's apport, which writes reports to /var/crash.
    Apport,
    /// Any other, by its path.
    Other(String),
}

/// Settings of the kernel and of this process that a [`CorePlan`] depends on.
#[derive(Debug, Clone)]
struct Process {
    /// `/proc/sys/kernel/core_pattern`, without the newline.
    pattern: String,
    /// `/proc/sys/kernel/core_uses_pid`.
    uses_pid: bool,
    limit: Option<Rlimit>,
    dumpable: i32,
    /// `/proc/self/coredump_filter`; bit 0 is private anonymous memory.
    filter: Option<u64>,
    /// Anonymous memory in bytes. A useful core file is at least this large.
    anonymous: u64,
    directory: PathBuf,
    executable: PathBuf,
    pid: u32,
    tid: u32,
    uid: u32,
    gid: u32,
    /// Name of the thread that will abort.
    comm: String,
    host: String,
    /// Whether this process is in the host's PID namespace.
    host_pids: bool,
    container: bool,
}

impl CorePlan {
    /// Reads the settings. Assumes that the calling thread is the one that will abort.
    ///
    /// # Errors
    /// If `/proc/sys/kernel/core_pattern` cannot be read.
    pub(crate) fn read() -> io::Result<CorePlan> {
        Ok(Self::new(&Process::read()?, &|directory| {
            if !directory.is_dir() {
                Some("does not exist")
            } else if !limits::may_create_in(directory) {
                Some("is not writable by this process")
            } else {
                None
            }
        }))
    }

    /// Raises the soft limit for core files to the hard limit. Read the plan again afterwards.
    ///
    /// # Errors
    /// Those of `setrlimit`.
    pub(crate) fn raise_limit() -> io::Result<()> {
        limits::raise_core_limit()
    }

    fn new(process: &Process, directory_problem: &dyn Fn(&Path) -> Option<&'static str>) -> CorePlan {
        let mut plan = CorePlan {
            destination: destination(process),
            obstacles: Vec::new(),
            notes: Vec::new(),
            open_with: String::new(),
        };
        let executable = process.executable.display();
        match &plan.destination {
            Destination::Nowhere => {
                plan.obstacles.push(
                    "the kernel's core_pattern is empty: \
                     `echo core | sudo tee /proc/sys/kernel/core_pattern`"
                        .to_owned(),
                );
            }
            Destination::File(path) => {
                plan.open_with = format!("gdb {executable} {}", path.display());
                let directory = path.parent().unwrap_or(Path::new("/"));
                if let Some(problem) = directory_problem(directory) {
                    plan.obstacles.push(format!("the directory {} {problem}", directory.display()));
                }
            }
            Destination::Handler(handler) => {
                plan.open_with = match handler {
                    Handler::Systemd if process.host_pids => format!("coredumpctl gdb {}", process.pid),
                    Handler::Systemd => format!("coredumpctl gdb {executable}"),
                    Handler::Apport => format!(
                        "apport-unpack /var/crash/{}.{}.crash crash && gdb {executable} crash/CoreDump",
                        executable.to_string().replace('/', "_"),
                        process.uid
                    ),
                    Handler::Other(program) => {
                        plan.notes.push(format!(
                            "{program} receives the core and may store, forward or discard it: see its \
                             documentation"
                        ));
                        format!("gdb {executable} <core>")
                    }
                };
                if process.container {
                    plan.notes.push(
                        "core_pattern is set by the host: the handler runs on the host, outside of this container"
                            .to_owned(),
                    );
                }
            }
        }
        plan.limits(process);
        plan
    }

    fn limits(&mut self, process: &Process) {
        match process.dumpable {
            0 => self.obstacles.push(
                "the process is marked not dumpable (PR_SET_DUMPABLE 0, or it changed its user): no core is written"
                    .to_owned(),
            ),
            2 => self.notes.push("the core will be readable by root only (dumpable is 2)".to_owned()),
            _ => {}
        }
        if process.filter.is_some_and(|filter| filter & 1 == 0) {
            self.obstacles.push(
                "/proc/self/coredump_filter excludes anonymous memory: the core will contain no heap and no \
                 stacks; `echo 0x33 > /proc/PID/coredump_filter`"
                    .to_owned(),
            );
        }
        let Some(limit) = process.limit else { return };
        let raise = "start it with `ulimit -c unlimited`, LimitCORE=infinity (systemd) or --ulimit core=-1 \
                     (docker)";
        let piped = matches!(self.destination, Destination::Handler(_));
        match limit.current {
            None => {}
            // The kernel does not apply the limit to handlers, but passes it to them (%c). Both known handlers obey it.
            Some(0) if piped => {
                self.obstacles.push(format!("the core limit is 0, and the handler may obey it: {raise}"))
            }
            Some(0) if limit.maximum == Some(0) => {
                self.obstacles
                    .push(format!("the core limit and its maximum are 0: no core is written; {raise}"));
            }
            Some(0) => self
                .obstacles
                .push("the core limit is 0: no core is written unless the limit is raised".to_owned()),
            Some(soft) if soft < process.anonymous => self.obstacles.push(format!(
                "the core limit is {}, the process uses {}: the core will be truncated; {raise}",
                size(soft),
                size(process.anonymous)
            )),
            Some(_) => {}
        }
    }
}

impl Renders for CorePlan {
    fn text(&self) -> String {
        format!("{self}\n")
    }
}

impl fmt::Display for CorePlan {
    /// A few lines: where the core file is written, how to open it, and what prevents it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Destination::File(path) => write!(f, "core: {}", path.display())?,
            Destination::Handler(Handler::Systemd) => f.write_str("core: stored by systemd-coredump")?,
            Destination::Handler(Handler::Apport) => f.write_str("core: stored by apport in /var/crash")?,
            Destination::Handler(Handler::Other(program)) => write!(f, "core: piped into {program}")?,
            Destination::Nowhere => f.write_str("core: none")?,
        }
        if !self.open_with.is_empty() {
            write!(f, "\nopen it: {}", self.open_with)?;
        }
        for obstacle in &self.obstacles {
            write!(f, "\nPROBLEM: {obstacle}")?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

impl Process {
    fn read() -> io::Result<Process> {
        let pattern = fs::read("/proc/sys/kernel/core_pattern")?;
        let pattern = String::from_utf8_lossy(&pattern).trim_end_matches('\n').to_owned();
        let text = |path: &str| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        let status = text("/proc/self/status");
        let number = |key: &[u8]| status_field(status.as_bytes(), key).and_then(decimal);
        let id = |key| number(key).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let thread = fs::read_link("/proc/thread-self").unwrap_or_default();
        let tid = thread.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let pid = std::process::id();
        let executable = fs::read_link("/proc/self/exe").unwrap_or_else(|_| PathBuf::from("<executable>"));
        // The kernel appends this if the file was removed or replaced.
        let executable = match executable.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
            Some(path) => PathBuf::from(path),
            None => executable,
        };
        Ok(Process {
            pattern,
            uses_pid: !matches!(text("/proc/sys/kernel/core_uses_pid").as_str(), "" | "0"),
            limit: limits::limit(Resource::Core).ok(),
            dumpable: limits::dumpable(),
            filter: u64::from_str_radix(&text("/proc/self/coredump_filter"), 16).ok(),
            anonymous: size_field(&status, "RssAnon:").unwrap_or(0),
            directory: fs::read_link("/proc/self/cwd").unwrap_or_else(|_| PathBuf::from("/")),
            executable,
            pid,
            tid: tid.unwrap_or(pid),
            uid: id(b"Uid:"),
            gid: id(b"Gid:"),
            comm: text("/proc/thread-self/comm"),
            host: text("/proc/sys/kernel/hostname"),
            // The first namespace's inode is fixed: PROC_PID_INIT_INO in the kernel's proc_ns.h.
            host_pids: fs::read_link("/proc/self/ns/pid")
                .is_ok_and(|link| link.as_os_str() == "pid:[4026531836]"),
            container: ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists()),
        })
    }
}

fn destination(process: &Process) -> Destination {
    if let Some(command) = process.pattern.strip_prefix('|') {
        let program = command.split_whitespace().next().unwrap_or_default();
        return Destination::Handler(match program.rsplit('/').next().unwrap_or_default() {
            "systemd-coredump" => Handler::Systemd,
            "apport" => Handler::Apport,
            _ => Handler::Other(program.to_owned()),
        });
    }
    if process.pattern.is_empty() && !process.uses_pid {
        return Destination::Nowhere;
    }
    let name = expand(process);
    Destination::File(process.directory.join(name))
}

/// Expands the specifiers. The kernel omits unknown specifiers and a `%` at the end.
fn expand(process: &Process) -> String {
    let mut name = String::new();
    let mut has_pid = false;
    let mut letters = process.pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            name.push(letter);
            continue;
        }
        let host = |number: u32| {
            if process.host_pids { number.to_string() } else { "<host pid>".to_owned() }
        };
        // The kernel replaces slashes in names by `!`.
        let flat = |text: &str| text.replace('/', "!");
        let executable = process.executable.to_string_lossy();
        match letters.next() {
            Some('%') => name.push('%'),
            Some('p') => {
                has_pid = true;
                name.push_str(&process.pid.to_string());
            }
            Some('P') => name.push_str(&host(process.pid)),
            Some('i') => name.push_str(&process.tid.to_string()),
            Some('I') => name.push_str(&host(process.tid)),
            Some('e') => name.push_str(&flat(&process.comm)),
            Some('f') => name.push_str(executable.rsplit('/').next().unwrap_or_default()),
            Some('E') => name.push_str(&flat(&executable)),
            Some('u') => name.push_str(&process.uid.to_string()),
            Some('g') => name.push_str(&process.gid.to_string()),
            Some('d') => name.push_str(&process.dumpable.to_string()),
            Some('h') => name.push_str(&flat(&process.host)),
            Some('t') => name.push_str("<time>"),
            Some('s') => name.push_str(&libc::SIGABRT.to_string()),
            Some('c') => {
                let soft = process.limit.and_then(|limit| limit.current);
                name.push_str(&soft.unwrap_or(libc::RLIM_INFINITY).to_string());
            }
            Some(_) | None => {}
        }
    }
    if process.uses_pid && !has_pid {
        name.push_str(&format!(".{}", process.pid));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pattern: &str) -> Process {
        Process {
            pattern: pattern.to_owned(),
            uses_pid: false,
            limit: Some(Rlimit { current: None, maximum: None }),
            dumpable: 1,
            filter: Some(0x33),
            anonymous: 100 << 20,
            directory: PathBuf::from("/srv/app"),
            executable: PathBuf::from("/usr/bin/server"),
            pid: 41,
            tid: 43,
            uid: 1000,
            gid: 100,
            comm: "de/louse".to_owned(),
            host: "box".to_owned(),
            host_pids: true,
            container: false,
        }
    }

    fn plan(process: &Process) -> CorePlan {
        CorePlan::new(process, &|_| None)
    }

    fn file(process: &Process) -> String {
        match plan(process).destination {
            Destination::File(path) => path.to_string_lossy().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn specifiers_are_those_of_core_5() {
        let all = "/var/c/%p %P %i %I %e %f %E %u %g %d %h %s %c %% %t %z %";
        assert_eq!(
            file(&process(all)),
            "/var/c/41 41 43 43 de!louse server !usr!bin!server 1000 100 1 box 6 18446744073709551615 % <time>  "
        );
        let inside = Process { host_pids: false, ..process("/c.%P") };
        assert_eq!(file(&inside), "/c.<host pid>");
    }

    #[test]
    fn relative_patterns_and_core_uses_pid() {
        assert_eq!(file(&process("core")), "/srv/app/core");
        assert_eq!(file(&Process { uses_pid: true, ..process("core") }), "/srv/app/core.41");
        assert_eq!(file(&Process { uses_pid: true, ..process("core-%p") }), "/srv/app/core-41");
        assert_eq!(file(&Process { uses_pid: true, ..process("") }), "/srv/app/.41");
        let nowhere = plan(&process(""));
        assert_eq!(nowhere.destination, Destination::Nowhere);
        assert_eq!(nowhere.obstacles.len(), 1);
    }

    #[test]
    fn the_text_shows_the_path_and_the_command() {
        assert_eq!(
            plan(&process("core.%p")).to_string(),
            "core: /srv/app/core.41\nopen it: gdb /usr/bin/server /srv/app/core.41"
        );
        let json = serde_json::to_value(plan(&process("core"))).unwrap();
        assert_eq!(json["destination"]["file"], "/srv/app/core");
        let missing = CorePlan::new(&process("/x/y/core"), &|_| Some("does not exist"));
        assert_eq!(missing.obstacles, ["the directory /x/y does not exist"]);
    }

    #[test]
    fn handlers_are_recognised() {
        let systemd = plan(&process("|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h"));
        assert_eq!(systemd.destination, Destination::Handler(Handler::Systemd));
        assert_eq!(systemd.open_with, "coredumpctl gdb 41");
        let apport = plan(&process("|/usr/share/apport/apport -p%p"));
        assert!(apport.open_with.starts_with("apport-unpack /var/crash/_usr_bin_server.1000.crash"));
        let other = Process { container: true, ..process("|/opt/keep --fast") };
        let other = plan(&other);
        assert_eq!(other.destination, Destination::Handler(Handler::Other("/opt/keep".to_owned())));
        assert_eq!(other.notes.len(), 2, "{:?}", other.notes);
    }

    #[test]
    fn limits_are_reported_as_obstacles() {
        let with = |current, maximum| Process { limit: Some(Rlimit { current, maximum }), ..process("core") };
        let obstacles = |process: &Process| plan(process).obstacles.join("; ");
        assert!(obstacles(&with(Some(0), Some(0))).contains("and its maximum are 0"));
        assert!(obstacles(&with(Some(0), None)).contains("unless the limit is raised"));
        assert!(
            obstacles(&with(Some(1 << 20), Some(1 << 20))).contains("is 1.0 MB, the process uses 104.8 MB")
        );
        assert_eq!(obstacles(&with(Some(1 << 30), None)), "");
        assert!(obstacles(&Process { dumpable: 0, ..process("core") }).contains("not dumpable"));
        assert!(obstacles(&Process { filter: Some(0x32), ..process("core") }).contains("no heap"));
    }

    #[test]
    fn the_plan_of_this_process_can_be_read() {
        let plan = CorePlan::read().unwrap();
        println!("{plan}");
        assert!(plan.to_string().starts_with("core: "));
        let before = limits::limit(Resource::Core).unwrap();
        CorePlan::raise_limit().unwrap();
        let after = limits::limit(Resource::Core).unwrap();
        assert_eq!((after.current, after.maximum), (before.maximum, before.maximum));
        assert!(limits::may_create_in(&std::env::temp_dir()));
        assert!(!limits::may_create_in(Path::new("/nowhere/at/all")));
    }
}
