use super::*;

fn frame(function: &str, file: Option<&str>, own: bool) -> StackFrame {
    StackFrame {
        function: Some(function.to_owned()),
        file: file.map(str::to_owned),
        line: file.map(|_| 7),
        module: Some("app".to_owned()),
        address: "0x1000".to_owned(),
        own,
        inlined: false,
        guessed: false,
    }
}

fn thread(tid: i32, activity: Activity, frames: Vec<StackFrame>) -> ThreadStack {
    ThreadStack {
        tid,
        name: format!("worker-{tid}"),
        state: Some("sleeping".to_owned()),
        role: ThreadRole::Other,
        activity,
        cpu_us: Some(1_500),
        queued_us: None,
        runs_task: None,
        unavailable: None,
        kernel: None,
        truncated: None,
        frames,
    }
}

fn in_lock() -> Vec<StackFrame> {
    vec![
        frame("syscall", None, false),
        frame("std::sys::futex_wait", Some("std/src/sys/futex.rs"), false),
        frame("std::sync::Mutex::lock", Some("std/src/sync/mutex.rs"), false),
        frame("app::transfer", Some("src/main.rs"), true),
        frame("tokio::runtime::poll", Some("tokio-1.54.1/src/runtime/task.rs"), false),
        frame("tokio::runtime::run", Some("tokio-1.54.1/src/runtime/run.rs"), false),
        frame("std::thread::start", Some("std/src/thread.rs"), false),
    ]
}

#[test]
fn worst_first_grouped_folded_and_marked() {
    let mut unavailable = thread(9, Activity::Unknown, Vec::new());
    unavailable.unavailable = Some("it blocks the signal".to_owned());
    let idle = thread(1, Activity::Idle, vec![frame("epoll_wait", None, false)]);
    let threads = [
        ThreadStack { cpu_us: Some(0), ..idle },
        thread(2, Activity::Lock, in_lock()),
        unavailable,
        thread(3, Activity::Running, vec![frame("app::spin", Some("src/main.rs"), true)]),
        thread(4, Activity::Lock, in_lock()),
    ];
    let capture = Capture { pause_us: 1_234, notes: vec!["a note".to_owned()], ..Capture::default() };
    let expected = "\
5 threads, 1 without a stack, paused for 1.2 ms, each at a moment of its own

1 thread running
  3 worker-3, sleeping, 1.5 ms of processor time
    → app::spin at src/main.rs:7

2 threads waiting for a lock
  2 worker-2, sleeping, 1.5 ms of processor time
  4 worker-4, sleeping, 1.5 ms of processor time
      … 2 frames of app, std (?full=true shows them)
      std::sync::Mutex::lock at std/src/sync/mutex.rs:7
    → app::transfer at src/main.rs:7
      … 3 frames of tokio, std

1 thread without a stack
  9 worker-9, sleeping, 1.5 ms of processor time
    no stack: it blocks the signal

1 thread idle
  1 worker-1, sleeping, under 20 ms of processor time
      epoll_wait in app

Notes:
  a note
";
    assert_eq!(text(&threads, &capture, false), expected);
    let full = text(&threads, &capture, true);
    assert!(full.contains("0x1000 tokio::runtime::run at tokio-1.54.1/src/runtime/run.rs:7"), "{full}");
    assert!(full.contains("    → 0x1000 app::transfer"), "{full}");
    assert!(!full.contains("frames of"), "{full}");
}

#[test]
fn a_crowd_is_listed_by_its_ids() {
    let threads: Vec<_> = (100..150).map(|tid| thread(tid, Activity::Lock, in_lock())).collect();
    let text = text(&threads, &Capture { consistent: true, ..Capture::default() }, false);
    assert!(text.starts_with("50 threads, all at one moment\n\n50 threads waiting for a lock\n"), "{text}");
    assert!(text.contains("  and 42: 108 109 110 "), "{text}");
    assert_eq!(text.matches("app::transfer").count(), 1);
}

#[test]
fn endless_names_and_recursions_are_cut() {
    let mut frames = vec![frame("app::down", Some("src/main.rs"), true); 500];
    frames.insert(0, frame(&"é".repeat(1000), Some("src/main.rs"), true));
    let text = text(&[thread(1, Activity::Running, frames)], &Capture::default(), false);
    assert!(text.contains("… the same 499 times more"), "{text}");
    assert!(text.lines().all(|l| l.chars().count() < 220), "{text}");
}
