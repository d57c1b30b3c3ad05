//! Processes with limits, and in namespaces of their own. Most of it needs root.

use std::path::PathBuf;
use std::process::Command;

use super::super::attach;
use super::harness::{PATIENT, Target, image_of};
use crate::snapshot::Snapshot as _;

/// A control group (version 1), removed on drop.
struct Group(PathBuf);

impl Group {
    /// `None` if this process may not make one.
    fn new(controller: &str, name: &str) -> Option<Self> {
        let path =
            PathBuf::from(format!("/sys/fs/cgroup/{controller}/delouse-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let group = Self(path);
        group.0.join("cgroup.procs").exists().then_some(group)
    }

    fn set(&self, file: &str, value: u64) {
        std::fs::write(self.0.join(file), value.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Fails as long as a process is in it.
        while self.0.exists() && std::fs::remove_dir(&self.0).is_err() {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_limit_of_processes_is_noted_and_does_no_harm() {
    let Some(group) = Group::new("pids", "processes") else {
        skipped!("no control group for processes can be made");
        return;
    };
    let target = Target::start("parked 3");
    group.set("cgroup.procs", target.pid().into());
    // Each thread counts.
    group.set("pids.max", std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap().count() as u64);
    let before = target.inventory();
    let captured = attach(target.pid(), &PATIENT).unwrap();
    let notes = captured.capture().notes.join(" ");
    assert!(!captured.capture().consistent && notes.contains("pids.max"), "{notes}");
    assert!(captured.threads().iter().all(|thread| thread.registers.is_ok()), "{:?}", captured.threads());
    drop(captured);
    assert_eq!(target.inventory(), before);
    group.set("pids.max", 1000);
    drop(image_of(&target));
    target.finish();
}

#[test]
fn a_limit_of_memory_prevents_an_image() {
    let Some(group) = Group::new("memory", "memory") else {
        skipped!("no control group for memory can be made");
        return;
    };
    let target = Target::start("memory 64");
    group.set("memory.limit_in_bytes", 8 << 20);
    group.set("cgroup.procs", target.pid().into());
    let captured = attach(target.pid(), &PATIENT).unwrap();
    let notes = captured.capture().notes.join(" ");
    assert!(notes.contains("the cgroup's memory limit leaves"), "{notes}");
    drop(captured);
    target.finish();
}

#[test]
fn a_process_in_other_namespaces_is_captured_and_reaps_the_image() {
    let inner = Target::command("parked 2");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--mount", "--fork", "--mount-proc", "--"]);
    command.arg(inner.get_program()).args(inner.get_args()).env(super::harness::SCENARIO, "parked 2");
    if !Command::new("unshare")
        .args(["--pid", "--mount", "--fork", "--", "true"])
        .status()
        .is_ok_and(|s| s.success())
    {
        skipped!("no namespaces can be made");
        return;
    }
    let target = Target::spawn(&mut command);
    let pid: u32 = target.children()[0].parse().unwrap();
    let captured = (0..5).map(|_| attach(pid, &PATIENT).unwrap()).find(|image| image.capture().consistent);
    let image = captured.expect("an image");
    assert!(image.threads().iter().filter(|thread| thread.name == "parked").count() == 2);
    drop(image);
    let children = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten()
        .map(|task| std::fs::read_to_string(task.path().join("children")).unwrap());
    assert_eq!(children.collect::<String>(), "");
    target.finish();
}
