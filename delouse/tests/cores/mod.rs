//! `delouse core PID`: core files that gdb and this command read.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use super::support::{Answer, Program, Served, delouse, program, until};

/// Starts the program, and waits until it is deadlocked.
fn deadlocked() -> Program {
    let deadlock = Program::start("plain_deadlock");
    until(|| (delouse(&["diagnose", &deadlock.pid()]).status == 2).then_some(()));
    deadlock
}

fn write_core(arguments: &[&str], directory: &Path) -> Answer {
    let mut command = crate::support::command();
    Answer::of(command.arg("core").args(arguments).current_dir(directory).output().unwrap())
}

/// What gdb prints for a core file; `None` if there is no gdb.
fn gdb(core: &Path, commands: &[&str]) -> Option<String> {
    let mut command = Command::new("gdb");
    command.args(["-batch", "-nx"]).args(commands.iter().flat_map(|command| ["-ex", *command]));
    let Output { stdout, .. } = command.arg(program("plain_deadlock")).arg(core).output().ok()?;
    Some(String::from_utf8_lossy(&stdout).into_owned())
}

/// Checks a core file of [`deadlocked`].
fn check_core(core: &Path, pid: &str) {
    let name = core.to_str().unwrap();
    let diagnosis = delouse(&["diagnose", name]);
    assert_eq!((diagnosis.status, diagnosis.err.as_str()), (2, ""), "{}", diagnosis.out);
    assert!(diagnosis.out.contains("eadlock: task "), "{}", diagnosis.out);
    let tasks = delouse(&["tasks", name]).out;
    assert!(tasks.contains("plain_deadlock::main::{async block}"), "the main future: {tasks}");
    assert!(tasks.contains("plain_deadlock::debit_first at"), "{tasks}");
    let threads = delouse(&["threads", name]).out;
    assert!(
        threads.contains("→ plain_deadlock::main at") && threads.contains("tokio-rt-worker"),
        "{threads}"
    );
    let Some(printed) = gdb(core, &["info threads", "bt", "info proc", "p $rip"]) else {
        return eprintln!("skipped: there is no gdb");
    };
    assert!(printed.contains(&format!("LWP {pid}")), "{printed}");
    assert!(printed.matches("LWP ").count() >= 3, "the workers: {printed}");
    // The main thread is the first one, and waits in `block_on`.
    assert!(printed.contains("plain_deadlock::main"), "{printed}");
}

#[test]
fn a_core_file_of_another_process_is_read_by_gdb_and_by_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let deadlock = deadlocked();
    let pid = deadlock.pid();
    let answer = write_core(&[&pid], directory.path());
    assert_eq!(answer.status, 0, "{}", answer.err);
    let core = directory.path().join(format!("core.{pid}"));
    assert!(answer.err.contains(&format!("delouse: wrote core.{pid}: ")), "{}", answer.err);
    assert!(answer.err.contains("the process was stopped for "), "{}", answer.err);
    assert!(!answer.err.contains("memory was read while the program ran"), "{}", answer.err);
    let metadata = fs::metadata(&core).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(
        metadata.blocks() * 512 < metadata.len(),
        "{} blocks, {} bytes",
        metadata.blocks(),
        metadata.len()
    );
    check_core(&core, &pid);

    write_core(&[&pid], directory.path()).fails_with(&format!("core.{pid}"));
    write_core(&[core.to_str().unwrap()], directory.path()).fails_with("is a core file already");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("TracerPid:\t0\n"), "{status}");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    assert_eq!(children.collect::<String>(), "", "the image was reaped");
}

/// As on a machine that the program did not run on.
#[test]
fn a_copy_of_the_executable_is_read_instead_of_the_one_that_the_core_file_names() {
    let directory = tempfile::tempdir().unwrap();
    let ran = directory.path().join("ran");
    // By a process of its own: children of other tests would keep a file open for writing that is copied here.
    assert!(Command::new("cp").arg(program("plain_deadlock")).arg(&ran).status().unwrap().success());
    let deadlock = Program::start(ran.to_str().unwrap());
    until(|| (delouse(&["diagnose", &deadlock.pid()]).status == 2).then_some(()));
    let core = directory.path().join("core");
    let core = core.to_str().unwrap();
    assert_eq!(write_core(&[&deadlock.pid(), "-o", core], directory.path()).status, 0);
    let copy = directory.path().join("copy");
    fs::rename(&ran, &copy).unwrap();
    delouse(&["threads", core]).fails_with("give the path of a copy of the same build");
    let threads = delouse(&["threads", copy.to_str().unwrap(), core]);
    assert!(threads.out.contains("→ plain_deadlock::main at"), "{}{}", threads.out, threads.err);
    assert!(!threads.out.contains("not on this machine"), "{}", threads.out);
    let diagnosis = delouse(&["diagnose", copy.to_str().unwrap(), core]);
    assert!(diagnosis.out.contains("eadlock: task "), "{}{}", diagnosis.out, diagnosis.err);
    // Another program is not taken for it.
    let other = delouse(&["threads", program("plain_healthy").to_str().unwrap(), core]);
    assert!(!other.out.contains("→ plain_"), "{}", other.out);
}

#[test]
fn a_core_file_is_written_without_a_pause() {
    let directory = tempfile::tempdir().unwrap();
    let deadlock = deadlocked();
    let core = directory.path().join("live");
    let arguments = [&deadlock.pid(), "--no-pause", "-o", core.to_str().unwrap()];
    let answer = write_core(&arguments, directory.path());
    assert_eq!(answer.status, 0, "{}", answer.err);
    assert!(answer.err.contains("note: memory was read while the program ran"), "{}", answer.err);
    assert!(answer.err.contains("threads wait in calls"), "{}", answer.err);
    // No thread was stopped, so that frame pointers are not known: stacks may be shorter.
    let tasks = delouse(&["tasks", core.to_str().unwrap()]);
    assert_eq!(tasks.status, 0, "{}", tasks.err);
    assert!(tasks.out.contains("plain_deadlock::debit_first at"), "{}", tasks.out);
}

#[test]
fn a_core_file_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let deadlock = deadlocked();
    let served = Served::start(&[&deadlock.pid()]);
    let answer = served.get("/core");
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.head.contains(&format!("filename=\"core.{}\"", deadlock.pid())), "{}", answer.head);
    assert!(answer.head.to_lowercase().contains("x-delouse-consistent: true"), "{}", answer.head);
    let core = directory.path().join("served");
    fs::write(&core, &answer.bytes).unwrap();
    check_core(&core, &deadlock.pid());
    // The command downloads it, as from any other server.
    let downloaded = write_core(&[&served.url], directory.path());
    assert_eq!(downloaded.status, 0, "{}", downloaded.err);
    check_core(&directory.path().join(format!("core.{}", deadlock.pid())), &deadlock.pid());
    let estimate = served.get("/core?estimate=true&format=text");
    assert!(
        estimate.status == 501 && estimate.text.contains("not estimated beforehand"),
        "{}",
        estimate.text
    );
}
