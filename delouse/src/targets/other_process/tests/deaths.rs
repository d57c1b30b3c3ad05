//! The helper is killed or stopped before each of its steps: the process continues as if nothing had happened.

use std::time::{Duration, Instant};

use super::super::stop::test_hook::signal_at;
use super::super::{AttachOptions, attach};
use super::harness::{PATIENT, Target, image_of};
use crate::snapshot::Snapshot as _;

/// Steps of a capture of a process with few threads, and its end.
const STEPS: u32 = 40;

/// Has the helper of one capture send itself `signal` before the step, if it takes that many.
fn capture_with(target: &Target, step: u32, signal: i32, options: &AttachOptions) {
    signal_at(step, signal);
    let captured = attach(target.pid(), options);
    drop(captured);
    signal_at(0, 0);
}

/// Whether all of its threads move on: none is stopped or traced.
fn is_running(target: &Target) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
    tasks.filter_map(Result::ok).all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("State:\tt") && !status.contains("State:\tT") && status.contains("TracerPid:\t0")
    })
}

#[test]
fn a_helper_that_is_killed_at_any_step_leaves_a_busy_process_unharmed() {
    let _alone = super::harness::alone();
    for scenario in ["busy", "asleep"] {
        let mut target = Target::start(scenario);
        for step in 1..=STEPS {
            capture_with(&target, step, libc::SIGKILL, &PATIENT);
            assert!(is_running(&target), "{scenario}, step {step}");
            let report = target.check();
            assert_eq!(report["interrupted"], "0", "{scenario}, step {step}");
        }
        if scenario == "busy" {
            let (before, after) = (target.check(), progress(&mut target));
            assert_ne!(before["echoes"], after["echoes"]);
        }
        // The images whose helpers were killed have ended, and the next capture reaps them.
        let images = target.children();
        assert!(!images.is_empty(), "some helpers were killed after the image was made");
        for image in &images {
            let stat = std::fs::read_to_string(format!("/proc/{image}/stat")).unwrap();
            assert!(stat.contains(") Z "), "{stat}");
        }
        drop(image_of(&target));
        let left = target.children().len();
        assert!(
            left <= 3,
            "{left} of {} images are left, which were killed before they were marked",
            images.len()
        );
        target.finish();
    }
}

/// Waits until it has done more work.
fn progress(target: &mut Target) -> std::collections::HashMap<String, String> {
    let before = target.check();
    loop {
        let now = target.check();
        if now["echoes"] != before["echoes"] && now["sums"] != before["sums"] {
            return now;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_helper_that_is_stopped_is_killed_by_its_watchdog() {
    let _alone = super::harness::alone();
    let mut target = Target::start("busy");
    let options = AttachOptions { pause: true, max_pause: Duration::from_millis(100) };
    // Steps at which threads are stopped.
    for step in [3, 5, 7, 8, 10] {
        let began = Instant::now();
        capture_with(&target, step, libc::SIGSTOP, &options);
        let took = began.elapsed();
        // Without the watchdog, the capture would wait for the helper for longer.
        assert!(took < Duration::from_secs(9), "step {step}: {took:?}");
        assert!(is_running(&target), "step {step}");
        progress(&mut target);
    }
    drop(image_of(&target));
    target.finish();
}

#[test]
fn random_deaths_of_the_helper_leave_a_busy_process_unharmed() {
    let _alone = super::harness::alone();
    let mut target = Target::start("busy");
    for round in 0..super::harness::times("DELOUSE_ATTACH_DEATHS", 60) {
        let step = 1 + (round as u32).wrapping_mul(7_919) % STEPS;
        capture_with(&target, step, libc::SIGKILL, &PATIENT);
    }
    progress(&mut target);
    assert!(is_running(&target));
    assert_eq!(target.check()["interrupted"], "0");
    let image = image_of(&target);
    assert!(!image.threads().is_empty());
    drop(image);
    target.finish();
}

#[test]
fn a_tool_that_is_killed_or_stopped_leaves_a_busy_process_unharmed() {
    let _alone = super::harness::alone();
    let mut target = Target::start("busy");
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        let tool = Target::start(&format!("tool {}", target.pid()));
        // SAFETY: no memory is involved.
        assert_eq!(unsafe { libc::kill(tool.pid() as i32, signal) }, 0);
        progress(&mut target);
        // The helper stops one thread once more, to have it reap the image.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_running(&target) {
            assert!(Instant::now() < deadline, "a thread stays stopped");
            std::thread::yield_now();
        }
        // On drop, the stopped one is killed.
        drop(tool);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !target.children().is_empty() {
            assert!(Instant::now() < deadline, "{:?} were not reaped", target.children());
            std::thread::yield_now();
        }
    }
    assert_eq!(target.check()["interrupted"], "0");
    target.finish();
}
