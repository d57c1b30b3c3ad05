use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::waits::Resource;

fn edge(waiter: u64, resource: &str, kind: ResourceKind, holders: &[u64]) -> Edge {
    let holder = |task: &u64| Holder {
        task: Some(*task),
        variable: "guard".to_owned(),
        place: Some(format!("app::f{task} at src/main.rs:{task}")),
        handle: "MutexGuard".to_owned(),
        certain: holders.len() == 1,
        ..Holder::default()
    };
    Edge {
        waiter: Some(waiter),
        place: Some(format!("app::f{waiter} at src/main.rs:{waiter}0").into()),
        resource: Resource { id: resource.to_owned(), kind, address: Some("0x7f01".to_owned()) }.into(),
        holders: holders.iter().map(holder).collect(),
        ..Edge::default()
    }
}

fn answer(edges: Vec<Edge>) -> WaitsAnswer {
    let graph = WaitGraph { tasks: 9, edges };
    WaitsAnswer { graph, findings: Vec::new(), capture: Capture::default() }
}

#[test]
fn a_circle_and_one_who_waits_outside_of_it() {
    let text = answer(vec![
        edge(1, "mutex-1", ResourceKind::Mutex, &[2]),
        edge(2, "mutex-2", ResourceKind::Mutex, &[1]),
        edge(3, "mutex-1", ResourceKind::Mutex, &[2]),
    ])
    .text();
    assert_eq!(
        text,
        "9 tasks, 3 waits for 2 resources\n\
         \n\
         task 3 in app::f3 at src/main.rs:30\n\
         \x20 waits for mutex-1 (0x7f01), held by\n\
         \x20   task 2: MutexGuard `guard` in app::f2 at src/main.rs:2\n\
         \x20     waits for mutex-2 (0x7f01), held by\n\
         \x20       task 1: MutexGuard `guard` in app::f1 at src/main.rs:1\n\
         \x20         waits for mutex-1 (0x7f01), held by\n\
         \x20           task 2: MutexGuard `guard` in app::f2 at src/main.rs:2  <- the circle closes here\n"
    );
}

#[test]
fn a_circle_that_nobody_waits_for_is_shown_too() {
    let text = answer(vec![
        edge(1, "mutex-1", ResourceKind::Mutex, &[2]),
        edge(2, "mutex-2", ResourceKind::Mutex, &[1]),
    ])
    .text();
    assert_eq!(text.matches("the circle closes here").count(), 1, "{text}");
}

#[test]
fn several_that_may_hold_it_and_those_outside() {
    let mut unsure = edge(1, "channel-1", ResourceKind::ChannelRecv, &[2, 3]);
    unsure.held_elsewhere = true;
    let text = answer(vec![unsure]).text();
    assert!(
        text.contains("waits for a message of channel-1 (0x7f01), which one of these may hold:"),
        "{text}"
    );
    assert!(text.contains("and somebody outside of all tasks"), "{text}");
}

#[test]
fn those_who_wait_alike_are_one_block() {
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
         3 tasks (tasks 1, 2, 3) in app::f1 at src/main.rs:10\n\
         \x20 wait for mutex-1 (0x7f01), held by\n\
         \x20   task 9: MutexGuard `guard` in app::f9 at src/main.rs:9\n\
         \n\
         task 4 in app::f4 at src/main.rs:40\n\
         \x20 waits for mutex-2 (0x7f01), held by\n\
         \x20   task 2: MutexGuard `guard` in app::f2 at src/main.rs:2, which waits for mutex-1, see above\n\
         \n\
         the main future in app::f0 at src/main.rs:00\n\
         \x20 waits for mutex-1 (0x7f01), held by\n\
         \x20   task 9: MutexGuard `guard` in app::f9 at src/main.rs:9\n"
    );
}

#[test]
fn who_locks_what_he_has_locked_is_in_a_circle() {
    let first = edge(1, "mutex-1", ResourceKind::Mutex, &[1]);
    let behind = (2..100).map(|waiter| Edge { waiter: Some(waiter), ..first.clone() });
    let text = answer(std::iter::once(first.clone()).chain(behind).collect()).text();
    assert!(text.contains("99 tasks (tasks 1, 2, 3, 4, 5, 6, 7, 8 and 91 more) in app::f1"), "{text}");
    assert!(text.contains("task 1: MutexGuard `guard` in app::f1 at src/main.rs:1  <- the circle"), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn timers_are_told_in_groups() {
    let timers = (1..=500).map(|id| Edge {
        place: Some("app::tick at src/main.rs:4".into()),
        ..edge(id, &format!("timer-{id}"), ResourceKind::Timer, &[])
    });
    let text = answer(timers.collect()).text();
    assert!(
        text.contains("500 tasks (tasks 1, 2, 3, 4, 5, 6, 7, 8 and 492 more) in app::tick at src/main.rs:4 wait for a timer"),
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
        println!("skipped: Graphviz is not installed");
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

#[test]
fn graphviz_draws_it() {
    let mut odd = edge(4, "channel-1", ResourceKind::ChannelRecv, &[1, 2]);
    odd.place = Some("app::\"quoted\\<T>\n{closure} at src/main.rs:1".into());
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

#[test]
fn a_picture_has_an_end() {
    let pairs = (1..10_000).map(|id| edge(id, &format!("mutex-{id}"), ResourceKind::Mutex, &[id ^ 1]));
    let text = dot::dot(&answer(pairs.collect()).graph);
    assert!(text.contains("// 8999 more waits are not drawn") && text.lines().count() < 6_000);
}
