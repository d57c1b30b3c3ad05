//! Made-up tasks, threads and samples for tests.

use std::time::Duration;

use super::Finding;
use super::sample::Sample;
use crate::report::FindingReport;
use crate::tasks::{Frame, Listing, Origin, ResourceKind, Task, TaskState, WaitsOn};
use crate::threads::{Activity, StackFrame, ThreadRole, ThreadStack};

/// An idle task of `multi_thread 1`, in `function` at that line of `src/main.rs`.
pub(crate) fn task(id: u64, function: &str, line: u32) -> Task {
    let frame = Frame {
        function: function.to_owned(),
        file: Some("src/main.rs".to_owned()),
        line: Some(line),
        origin: Origin::User,
        ..Frame::default()
    };
    Task {
        id,
        runtime: Some("multi_thread 1".into()),
        state: Some(TaskState::Idle),
        stack: [frame].into(),
        ..Task::default()
    }
}

/// What a task that reads from a socket waits for.
pub(crate) fn io(fd: i32) -> WaitsOn {
    WaitsOn { kind: ResourceKind::Io, fd: Some(fd), ..WaitsOn::default() }
}

/// A thread whose own code, `app::work at src/work.rs:9`, has called `called`.
pub(crate) fn thread(tid: i32, role: ThreadRole, activity: Activity, called: &str) -> ThreadStack {
    let frame = |function: &str, own: bool| StackFrame {
        function: Some(function.to_owned()),
        file: Some(if own { "src/work.rs" } else { "std/src/lib.rs" }.to_owned()),
        line: Some(9),
        address: "0x1".to_owned(),
        own,
        ..StackFrame::default()
    };
    ThreadStack {
        tid,
        name: "worker".to_owned(),
        role,
        activity,
        cpu_us: Some(0),
        frames: vec![frame(called, false), frame("app::work", true)],
        ..ThreadStack::default()
    }
}

/// A thread, the task that it polls, and the rounds of its runtime.
type Polling = (ThreadStack, Option<u64>, Option<u64>);

/// A sample after that many milliseconds; each thread `(thread, task, rounds)` polls that task.
pub(crate) fn sample(ms: u64, tasks: Vec<Task>, threads: Vec<Polling>) -> Sample {
    let of = |pick: fn(&Polling) -> Option<u64>| -> Vec<(i32, u64)> {
        threads.iter().filter_map(|thread| Some((thread.0.tid, pick(thread)?))).collect()
    };
    let listing = Listing { tasks, running: of(|t| t.1), rounds: of(|t| t.2), ..Listing::default() };
    Sample {
        at: Duration::from_millis(ms),
        listing,
        threads: threads.into_iter().map(|(thread, ..)| thread).collect(),
        ..Sample::default()
    }
}

/// Findings as people read them.
pub(crate) fn reported(findings: Vec<Finding>) -> Vec<FindingReport> {
    FindingReport::all(findings)
}
