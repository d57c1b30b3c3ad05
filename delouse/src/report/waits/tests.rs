use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::tasks::{Address, ResourceKind, WaitsOn};
use crate::waits::{CodeLocation, Gap, Resource, Severity, TaskIds, fixtures};

fn location(function: &str, line: u32) -> Option<Arc<CodeLocation>> {
    crate::waits::location::of_task(&fixtures::task(1, function, line).stack)
}

fn edge(waiter: u64, resource: &str, kind: ResourceKind, holders: &[u64]) -> Edge {
    let holder = |task: &u64| Holder {
        task: Some(*task),
        variable: "guard".to_owned(),
        place: location(&format!("app::f{task}"), *task as u32),
        handle: "MutexGuard".to_owned(),
        certain: holders.len() == 1,
        ..Holder::default()
    };
    Edge {
        waiter: Some(waiter),
        place: location(&format!("app::f{waiter}"), waiter as u32 * 10),
        resource: Resource { id: resource.to_owned(), kind, address: Some("0x7f01".to_owned()) }.into(),
        holders: holders.iter().map(holder).collect(),
        ..Edge::default()
    }
}

fn answer(edges: Vec<Edge>) -> WaitsAnswer {
    let graph = WaitGraph { tasks: 9, edges, gaps: Vec::new() };
    WaitsAnswer { graph, findings: Vec::new(), not_covered: Vec::new(), capture: Capture::default() }
}

/// The same, with a finding about these tasks.
fn answer_with_deadlock(edges: Vec<Edge>, tasks: &[u64]) -> WaitsAnswer {
    let finding = FindingReport {
        kind: FindingKind::Deadlock,
        severity: Severity::Certain,
        summary: "they wait for one another".to_owned(),
        tasks: tasks.to_vec(),
        count: tasks.len(),
        evidence: Vec::new(),
        facts: Vec::new(),
        remedy: None,
    };
    WaitsAnswer { findings: vec![finding], ..answer(edges) }
}

#[test]
fn a_circle_and_one_that_waits_outside_of_it() {
    let edges = vec![
        edge(1, "mutex-1", ResourceKind::Mutex, &[2]),
        edge(2, "mutex-2", ResourceKind::Mutex, &[1]),
        edge(3, "mutex-1", ResourceKind::Mutex, &[2]),
    ];
    let text = answer_with_deadlock(edges.clone(), &[1, 2, 3]).text();
    assert_eq!(
        text,
        "9 tasks, 3 waits for 2 resources\n\
         ! Deadlock: they wait for one another\n\
         \n\
         task 3 in app::f3 at src/main.rs:30\n\
         \x20 waits for mutex-1 (0x7f01), held by\n\
         \x20   task 2: MutexGuard `guard` in app::f2 at src/main.rs:2\n\
         \x20     waits for mutex-2 (0x7f01), held by\n\
         \x20       task 1: MutexGuard `guard` in app::f1 at src/main.rs:1\n\
         \x20         waits for mutex-1 (0x7f01), held by\n\
         \x20           task 2: MutexGuard `guard` in app::f2 at src/main.rs:2  <- the circle closes here\n"
    );
    let text = answer(edges).text();
    assert!(text.contains("in app::f2 at src/main.rs:2, see above") && !text.contains("circle"), "{text}");
}

#[test]
fn a_circle_that_no_other_task_waits_for_is_shown_too() {
    let edges =
        vec![edge(1, "mutex-1", ResourceKind::Mutex, &[2]), edge(2, "mutex-2", ResourceKind::Mutex, &[1])];
    let text = answer_with_deadlock(edges, &[1, 2]).text();
    assert_eq!(text.matches("the circle closes here").count(), 1, "{text}");
}

#[test]
fn a_task_that_another_waits_for_to_end_is_shown_with_its_place() {
    let of =
        |task| Holder { task: Some(task), handle: "task".to_owned(), certain: true, ..Holder::default() };
    let mut join = edge(0, "task-4", ResourceKind::Join, &[]);
    join.holders = [of(4)].into();
    let text = answer(vec![join, edge(4, "mutex-1", ResourceKind::Mutex, &[5])]).text();
    assert!(
        text.contains(
            "  waits for the end of task-4 (0x7f01)\n    task 4 in app::f4 at src/main.rs:40\n      waits for mutex-1"
        ),
        "{text}"
    );
}

#[test]
fn a_task_that_blocks_its_thread_is_shown_with_it() {
    let blocks = Edge { thread: Some(9), place: None, ..edge(1, "lock-1", ResourceKind::Lock, &[]) };
    let text = answer(vec![blocks]).text();
    assert!(
        text.contains("\n  task 1, which blocks thread 9, waits for lock-1 (0x7f01), held by no"),
        "{text}"
    );
}

#[test]
fn several_that_may_hold_it_and_those_outside() {
    let mut unsure = edge(1, "channel-1", ResourceKind::ChannelRecv, &[2, 3]);
    unsure.held_elsewhere = true;
    let text = answer(vec![unsure]).text();
    assert!(
        text.contains("waits for a message of channel-1 (0x7f01), which may come from one of these:"),
        "{text}"
    );
    assert!(text.contains("and more that was not found: in a static, on a thread"), "{text}");
}

#[test]
fn tasks_that_wait_alike_are_one_block() {
    let first = edge(1, "mutex-1", ResourceKind::Mutex, &[9]);
    let alike = |waiter| Edge { waiter: Some(waiter), ..first.clone() };
    // One of them has what another one waits for.
    let text = answer(vec![
        first.clone(),
        alike(2),
        alike(3),
        edge(4, "mutex-2", ResourceKind::Mutex, &[2]),
        edge(0, "mutex-1", ResourceKind::Mutex, &[9]),
    ])
    .text();
    assert_eq!(
        text,
        "9 tasks, 5 waits for 2 resources\n\
         \n\
         3 tasks (1, 2, 3) in app::f1 at src/main.rs:10\n\
         \x20 wait for mutex-1 (0x7f01), held by\n\
         \x20   task 9: MutexGuard `guard` in app::f9 at src/main.rs:9\n\
         \n\
         task 4 in app::f4 at src/main.rs:40\n\
         \x20 waits for mutex-2 (0x7f01), held by\n\
         \x20   task 2: MutexGuard `guard` in app::f2 at src/main.rs:2, which waits for mutex-1, see above\n\
         \n\
         the main future in app::f0 at src/main.rs:0\n\
         \x20 waits for mutex-1 (0x7f01), held by\n\
         \x20   task 9: MutexGuard `guard` in app::f9 at src/main.rs:9\n"
    );
}

#[test]
fn a_task_that_locks_what_it_has_locked_is_in_a_circle() {
    let first = edge(1, "mutex-1", ResourceKind::Mutex, &[1]);
    let behind = (2..100).map(|waiter| Edge { waiter: Some(waiter), ..first.clone() });
    let text = answer_with_deadlock(std::iter::once(first.clone()).chain(behind).collect(), &[1]).text();
    assert!(text.contains("99 tasks (1, 2, 3, 4, 5, 6, 7, 8 and 91 more) in app::f1"), "{text}");
    assert!(text.contains("task 1: MutexGuard `guard` in app::f1 at src/main.rs:1  <- the circle"), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
}

#[test]
fn timers_are_told_in_groups() {
    let timers = (1..=500).map(|id| Edge {
        place: location("app::tick", 4),
        outside: Some(WaitsOn { kind: ResourceKind::Timer, ..WaitsOn::default() }.into()),
        ..edge(id, &format!("timer-{id}"), ResourceKind::Timer, &[])
    });
    let text = answer(timers.collect()).text();
    assert!(
        text.contains(
            "500 tasks (1, 2, 3, 4, 5, 6, 7, 8 and 492 more) in app::tick at src/main.rs:4 wait for a timer"
        ),
        "{text}"
    );
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn however_many_or_deep_the_text_ends() {
    let chain = (1..10_000).map(|id| edge(id, &format!("mutex-{id}"), ResourceKind::Mutex, &[id + 1]));
    assert!(answer(chain.collect()).text().lines().count() < 6_000);
    let pairs = (1..10_000).map(|id| edge(id, &format!("mutex-{id}"), ResourceKind::Mutex, &[id ^ 1]));
    let text = answer(pairs.collect()).text();
    assert!(text.contains("more like these") && text.lines().count() < 1_000, "{}", text.lines().count());
}

/// What Graphviz makes of it; `None` where there is no Graphviz.
fn rendered(dot: &str) -> Option<Result<String, String>> {
    let dot_command = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = dot_command else {
        skipped!("Graphviz is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(dot.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some(if output.status.success() && errors.is_empty() {
        Ok(out.into_owned())
    } else {
        Err(errors.into_owned())
    })
}

fn sentence_without_holder(kind: ResourceKind, gaps: Vec<Gap>, unknown_handles: bool) -> String {
    let leaf = Some("lib::Future".into());
    let edge = Edge { unknown_handles, leaf, ..edge(1, "resource-1", kind, &[]) };
    let mut answer = answer(vec![edge]);
    answer.graph.gaps = gaps;
    answer.text()
}

#[test]
fn that_no_task_holds_it_is_said_only_where_all_tasks_were_read() {
    let text = sentence_without_holder(ResourceKind::Mutex, Vec::new(), false);
    assert!(text.contains("waits for resource-1 (0x7f01), held by no task"), "{text}");
    let text = sentence_without_holder(ResourceKind::Semaphore, Vec::new(), false);
    assert!(text.contains("of which no task has a permit"), "{text}");
    for kind in
        [ResourceKind::Mutex, ResourceKind::Semaphore, ResourceKind::ChannelRecv, ResourceKind::Notify]
    {
        let running = Gap::RunningTasks(TaskIds::of([7]));
        let text = sentence_without_holder(kind, vec![running, Gap::SearchCut], false);
        assert!(text.contains("not read: task 7 may run"), "{text}");
        let why = "(task 7 may run: what it holds is on its thread's stack; more above)";
        assert!(text.contains("; delouse does not know what ") && text.contains(why), "{text}");
        let text = sentence_without_holder(kind, Vec::new(), true);
        assert!(text.contains("(it knows no handles that belong to `lib::Future`)"), "{text}");
        assert!(!text.contains("no task"), "{text}");
    }
}

#[test]
fn what_comes_from_outside_is_shown_and_has_no_holder() {
    let of = |id, outside: WaitsOn, leaf: &str| Edge {
        resource: Resource { kind: outside.kind, ..Resource::default() }.into(),
        outside: Some(outside.into()),
        leaf: Some(leaf.into()),
        ..edge(id, "", ResourceKind::Unknown, &[])
    };
    let io =
        WaitsOn { kind: ResourceKind::Io, fd: Some(9), address: Some(Address::new(1)), ..WaitsOn::default() };
    let timer = WaitsOn { kind: ResourceKind::Timer, in_ms: Some(300), ..WaitsOn::default() };
    let read = |fd| WaitsOn { fd: Some(fd), ..io.clone() };
    let text = answer(vec![
        of(1, io.clone(), "tokio::io::PollEvented"),
        of(2, timer, "tokio::time::Sleep"),
        of(3, WaitsOn::default(), "lib::Body"),
        of(5, read(20), "tokio::io::CopyBidirectional"),
        of(5, read(22), "tokio::io::CopyBidirectional"),
        edge(3, "mutex-1", ResourceKind::Mutex, &[4]),
    ])
    .text();
    for line in [
        "\ntask 3 in app::f3 at src/main.rs:30\n",
        "\n  waits for something that delouse does not know: `lib::Body`\n",
        "\n  waits for mutex-1 (0x7f01), held by\n",
        "\nfor what comes from outside (timers, sockets), or is not known:\n",
        "\n  task 1 in app::f1 at src/main.rs:10 waits for I/O fd 9\n",
        "\n  task 5 in app::f5 at src/main.rs:50 waits for I/O fd 20, and for I/O fd 22\n",
        "\n  task 2 in app::f2 at src/main.rs:20 waits for a timer (in 300 ms)\n",
    ] {
        assert!(text.contains(line), "{line} is not in: {text}");
    }
    assert!(!text.contains("no task"), "{text}");
}

/// A handle in a value that many share is within reach of all of them: that makes no one of them a holder.
#[test]
fn a_shared_state_is_no_holder() {
    let mut first = edge(1, "broadcast-1", ResourceKind::Broadcast, &[2, 3]);
    let shared = |holder: &Holder| Holder {
        shared: true,
        variable: "state.tx".to_owned(),
        handle: "Sender".to_owned(),
        ..holder.clone()
    };
    first.holders = first.holders.iter().map(shared).collect();
    first.more_holders = 242;
    let edges = vec![first, edge(2, "channel-1", ResourceKind::ChannelRecv, &[1])];
    let text = answer(edges.clone()).text();
    assert!(
        text.contains(
            "    within reach of tasks 2, 3 and 242 more, in a value that is shared: Sender `state.tx`\n"
        ),
        "{text}"
    );
    assert!(
        !text.contains("circle") && text.contains("  waits for a message of broadcast-1 (0x7f01)\n"),
        "{text}"
    );
    // Where a finding proves that all of them wait for one another, the way is shown.
    let text = answer_with_deadlock(edges, &[1, 2, 3]).text();
    assert!(text.contains("Sender `state.tx`") && text.contains("the circle closes here"), "{text}");
}

#[test]
fn what_is_cut_is_counted() {
    let mut many = edge(1, "watch-1", ResourceKind::Watch, &[2, 3, 4, 5, 6, 7, 8, 9]);
    many.more_holders = 242;
    let text = answer(vec![many]).text();
    assert!(text.contains("\n    and 242 more\n"), "{text}");
    let places = (1..=100).map(|id| Edge {
        outside: Some(WaitsOn::default().into()),
        ..edge(id, "", ResourceKind::Unknown, &[])
    });
    let text = answer(places.collect()).text();
    assert!(text.ends_with("  and 40 more places, with 40 waits\n"), "{text}");
}

#[test]
fn graphviz_draws_it() {
    let mut odd = edge(4, "channel-1", ResourceKind::ChannelRecv, &[1, 2]);
    odd.place = location("app::\"quoted\\<T>\n{closure}", 1);
    let graph = answer(vec![
        edge(1, "mutex-1", ResourceKind::Mutex, &[2]),
        edge(2, "mutex-2", ResourceKind::Mutex, &[1]),
        odd,
    ])
    .graph;
    let text = dot::dot(&graph);
    assert!(text.contains("\"mutex-1\" -> \"task 2\" [style=solid, label=\"guard\"];"), "{text}");
    assert!(text.contains("\"channel-1\" -> \"task 1\" [style=dashed, label=\"guard\"];"), "{text}");
    for text in [text, dot::dot(&WaitGraph::default())] {
        if let Some(svg) = rendered(&text) {
            assert!(svg.unwrap_or_else(|error| panic!("{error}\n{text}")).contains("</svg>"));
        }
    }
}

fn nodes(dot: &str) -> usize {
    dot.lines().filter(|line| line.contains("[shape=")).count()
}

#[test]
fn many_tasks_make_a_picture_that_a_person_can_read() {
    let kind = |id: u64| if id.is_multiple_of(2) { ResourceKind::Io } else { ResourceKind::Timer };
    let connections = (1..=250).map(|id| Edge {
        place: location("app::connection", 10 + id as u32 % 2),
        outside: Some(WaitsOn { kind: kind(id), ..WaitsOn::default() }.into()),
        ..edge(id, "", kind(id), &[])
    });
    let locked = (301..=330).map(|id| Edge {
        place: location("app::query", 30),
        ..edge(id, "mutex-1", ResourceKind::Mutex, &[7])
    });
    let channels = (401..=500).map(|id| Edge {
        place: location("app::worker", 40),
        ..edge(id, &format!("channel-{id}"), ResourceKind::ChannelRecv, &[9])
    });
    let text = dot::dot(&answer(connections.chain(locked).chain(channels).collect()).graph);
    assert!(nodes(&text) <= 20, "{text}");
    for label in ["125 tasks", "30 tasks\\n301, 302", "100 × a message of a channel", "mutex-1\\na mutex"] {
        assert!(text.contains(label), "{label} is not in: {text}");
    }
    if let Some(svg) = rendered(&text) {
        assert!(svg.unwrap_or_else(|error| panic!("{error}\n{text}")).contains("</svg>"));
    }
}

#[test]
fn a_picture_has_an_end() {
    // All alike: a task, and what it waits for.
    let pairs = (1..10_000).map(|id| Edge {
        place: location("app::f", 1),
        ..edge(id, &format!("mutex-{id}"), ResourceKind::Mutex, &[id ^ 1])
    });
    assert!(nodes(&dot::dot(&answer(pairs.collect()).graph)) < 20);
    // All different.
    let pairs = (1..10_000).map(|id| edge(id, &format!("mutex-{id}"), ResourceKind::Mutex, &[id ^ 1]));
    let text = dot::dot(&answer(pairs.collect()).graph);
    assert!(text.contains("not drawn") && nodes(&text) <= 61 && text.lines().count() < 500, "{text}");
}
