//! Processes of which no image can be made, or that may not be read.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::super::handle::Process;
use super::super::memory::Memory;
use super::super::stop::{self, Request};
use super::super::{AttachError, attach, attach_known, read_mappings};
use super::harness::{PATIENT, Target, image_of};
use crate::snapshot::Snapshot as _;

/// Sends a signal to the process.
fn signal(target: &Target, signal: i32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(target.pid() as i32, signal) }, 0);
}

/// Waits until its first thread is in this state.
fn wait_for_state(pid: u32, state: char) {
    let is_there = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(&format!(") {state} "))
    };
    while !is_there() {
        std::thread::yield_now();
    }
}

/// Waits until a signal has stopped all of its threads, which happens one after another.
fn wait_until_stopped(target: &Target) {
    let state = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap();
    let threads = || std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
    let is_stopped = |stat: &str| stat.contains(") T ") || stat.contains(") Z ");
    while !threads().all(|thread| is_stopped(&state(thread.unwrap()))) {
        std::thread::yield_now();
    }
}

fn refusal(pid: u32) -> AttachError {
    attach(pid, &PATIENT).err().unwrap()
}

#[test]
fn ids_without_a_program_are_refused() {
    let mut ended = Command::new("/bin/true").spawn().unwrap();
    wait_for_state(ended.id(), 'Z');
    assert!(matches!(refusal(ended.id()), AttachError::Zombie { .. }), "{}", refusal(ended.id()));
    ended.wait().unwrap();
    assert!(matches!(refusal(ended.id()), AttachError::Gone { .. }), "{}", refusal(ended.id()));
    assert!(matches!(refusal(0), AttachError::Gone { .. }));
    assert!(matches!(refusal(u32::MAX), AttachError::Gone { .. }));
    assert!(matches!(refusal(std::process::id()), AttachError::ThisProcess { .. }));
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        assert!(matches!(refusal(2), AttachError::Kernel { .. }), "{}", refusal(2));
    }
    let target = Target::start("parked 1");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
    let mut ids = tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let thread: u32 = ids.find(|tid| *tid != target.pid()).unwrap();
    match refusal(thread) {
        AttachError::Thread { process, .. } => assert_eq!(process, u64::from(target.pid())),
        other => panic!("{other}"),
    }
}

#[test]
fn a_system_call_filter_neither_breaks_nor_kills_the_process() {
    for action in ["filtered errno", "filtered kill"] {
        let target = Target::start(action);
        let before = target.inventory();
        let captured = attach(target.pid(), &PATIENT).unwrap();
        let notes = captured.capture().notes.join(" ");
        // Root may suspend the filter.
        assert!(captured.capture().consistent || notes.contains("seccomp"), "{notes}");
        drop(captured);
        assert_eq!(target.inventory(), before, "{action}");
        target.finish();
    }
}

#[test]
fn a_stopped_process_is_read_and_stays_stopped() {
    let target = Target::start("asleep");
    signal(&target, libc::SIGSTOP);
    wait_until_stopped(&target);
    let captured = attach(target.pid(), &PATIENT).unwrap();
    let notes = captured.capture().notes.join(" ");
    assert!(!captured.capture().consistent && notes.contains("stopped by a signal"), "{notes}");
    for thread in captured.threads() {
        assert!(thread.registers.is_ok(), "{thread:?}");
    }
    drop(captured);
    wait_until_stopped(&target);
    signal(&target, libc::SIGCONT);
    target.finish();
}

#[test]
fn a_traced_process_is_read_without_a_stop_and_the_tracer_is_named() {
    let target = Target::start("parked 2");
    target.wait_until_asleep("parked");
    let pid = target.pid() as i32;
    let (stop, until) = std::sync::mpsc::channel::<()>();
    let (started, is_started) = std::sync::mpsc::channel();
    // A tracer is a thread.
    let tracer = std::thread::spawn(move || {
        // SAFETY: no memory is involved.
        started.send(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) }).unwrap();
        let _closed = until.recv();
    });
    assert_eq!(is_started.recv().unwrap(), 0);
    let captured = attach(target.pid(), &PATIENT).unwrap();
    let notes = captured.capture().notes.join(" ");
    assert!(!captured.capture().consistent, "{notes}");
    assert!(
        notes.contains(&format!("process {}", std::process::id())) && notes.contains("traces it"),
        "{notes}"
    );
    assert!(captured.threads().iter().filter(|thread| thread.registers.is_ok()).count() >= 3);
    drop((captured, stop));
    tracer.join().unwrap();
    drop(image_of(&target));
    target.finish();
}

#[test]
fn a_process_whose_first_thread_has_ended_is_read_through_another() {
    let target = Target::start("leaderless");
    let captured = attach(target.pid(), &PATIENT).unwrap();
    let notes = captured.capture().notes.join(" ");
    assert!(notes.contains("first thread has ended"), "{notes}");
    assert!(captured.mappings().len() > 5);
    let parked: Vec<_> = captured.threads().iter().filter(|thread| thread.name == "parked").collect();
    assert!(parked.len() == 2 && parked.iter().all(|thread| thread.registers.is_ok()), "{parked:?}");
    assert!(std::fs::File::open(captured.executable()).is_ok());
}

#[test]
fn a_process_that_replaces_its_program_is_captured_or_refused_and_continues() {
    let _alone = super::harness::alone();
    let mut child = Target::command("exec 30")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut images, mut others) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_last = |pid: u32| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|text| text.windows(7).any(|part| part == b"exec 0\0"))
    };
    while !is_last(child.id()) {
        match attach(child.id(), &PATIENT) {
            Ok(captured) if captured.capture().consistent => images += 1,
            Ok(_)
            | Err(AttachError::Replaced { .. } | AttachError::Gone { .. } | AttachError::Zombie { .. }) => {
                others += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "{images} images, {others} others");
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {images} images, {others} others", output.status);
    assert!(images > 0, "{others} others");
}

#[test]
fn a_process_that_executes_a_program_is_not_taken_for_the_known_one() {
    // The same program again: neither the id, nor the start, nor the file differ.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read line; exec /bin/sh -c 'read line'"]).stdin(std::process::Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let known = OnceLock::new();
    let attach_again = || attach_known(shell.id(), &PATIENT, &known).map(drop);
    let arguments = || std::fs::read(format!("/proc/{}/cmdline", shell.id())).unwrap();
    // `spawn` may return before the program has been replaced entirely.
    while !arguments().starts_with(b"/bin/sh\0") {
        std::thread::yield_now();
    }
    attach_again().unwrap();
    attach_again().unwrap();
    let first = arguments();
    std::io::Write::write_all(&mut shell.stdin.as_ref().unwrap(), b"\n").unwrap();
    while arguments() == first {
        std::thread::yield_now();
    }
    assert!(matches!(attach_again(), Err(AttachError::Executed { .. })), "{:?}", attach_again());
    let pid = shell.id();
    shell.kill().unwrap();
    shell.wait().unwrap();
    let ended = attach_known(pid, &PATIENT, &known).map(drop);
    assert!(matches!(ended, Err(AttachError::Ended { .. })), "{ended:?}");
}

/// An image that an earlier capture has left may have been reaped by another one, and its id may be that of a child now.
#[test]
fn a_child_of_the_program_is_left_to_the_program() {
    let target = Target::start("parent");
    let child = target.value("child").to_string();
    wait_for_state(child.parse().unwrap(), 'Z');
    let process = Process::find(target.pid()).unwrap();
    let memory = process.open("mem", rustix::fs::OFlags::RDWR).unwrap();
    let mappings = read_mappings(&process).unwrap();
    let gadgets = stop::find_gadgets(&Memory::live(memory.try_clone().unwrap(), None), &mappings);
    let captured = stop::capture(&Request {
        process: &process,
        memory: &memory,
        mappings: &mappings,
        threads: &process.threads().unwrap(),
        gadgets,
        is_stopped: false,
        left_over: &[child.parse().unwrap()],
        max_pause: PATIENT.max_pause,
    });
    assert!(matches!(captured.image, Ok(Some(_))), "{:?}", captured.image);
    drop(captured);
    assert_eq!(target.children(), [child], "only the image was reaped");
    target.finish();
}

#[test]
fn processes_that_end_meanwhile_are_captured_or_refused() {
    for round in 0..40 {
        let mut child = Command::new("/bin/sleep").arg("0.004").spawn().unwrap();
        let captured = attach(child.id(), &PATIENT);
        if let Err(error) = &captured {
            let expected = matches!(
                error,
                AttachError::Gone { .. }
                    | AttachError::Zombie { .. }
                    | AttachError::Replaced { .. }
                    | AttachError::ImageEnded { .. }
            );
            assert!(expected, "round {round}: {error}");
        }
        drop(captured);
        assert!(child.wait().unwrap().success(), "round {round}");
    }
}

#[test]
fn threads_that_start_and_end_meanwhile_do_no_harm() {
    let _alone = super::harness::alone();
    let target = Target::start("churn");
    for _ in 0..100 {
        drop(attach(target.pid(), &PATIENT).unwrap());
    }
    assert_eq!(target.children(), Vec::<String>::new());
    target.finish();
}

#[test]
fn another_user_is_refused_with_both_names() {
    // Root may read everything: the refusal is seen by a child without privileges.
    if let Ok(pid) = std::env::var("DELOUSE_ATTACH_PID") {
        println!("refused: {}", refusal(pid.parse().unwrap()));
        return;
    }
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        skipped!("only root may start a process of another user");
        return;
    }
    let target = Target::start("parked 1");
    let test = "targets::other_process::tests::awkward::another_user_is_refused_with_both_names";
    let run_as = |user: u32, pid: u32| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        command.env("DELOUSE_ATTACH_PID", pid.to_string()).uid(user).gid(user);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = run_as(65_534, target.pid());
    assert!(text.contains("runs as user 0, this command as user 65534") && text.contains("sudo"), "{text}");
    let mut same = Command::new("/bin/sleep").arg("60").uid(65_534).gid(65_534).spawn().unwrap();
    let text = run_as(65_533, same.id());
    assert!(text.contains("runs as user 65534, this command as user 65533"), "{text}");
    same.kill().unwrap();
    same.wait().unwrap();
    target.finish();
}
