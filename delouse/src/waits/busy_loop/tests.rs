use super::super::fixtures;
use super::*;
use crate::tasks::{Frame, WaitsOn};

const RECV: &str = "tokio::sync::mpsc::bounded::Receiver<T>::recv::{{closure}}";

fn input(source: Source, variable: &str, ended: bool, progress: u64) -> Input {
    let function = Frame { function: "app::work".to_owned(), ..Frame::default() };
    Input {
        source,
        variable: variable.to_owned(),
        function: Some(function),
        ended: Some(ended),
        progress: Some(progress),
        fd: (source == Source::File).then_some(7),
        unread: None,
        resource: None,
        handles: None,
        polled_in: if source == Source::File { &["tokio::net::"] } else { &["tokio::sync::mpsc::"] },
    }
}

fn closed() -> Input {
    input(Source::Channel, "requests", true, 3)
}

/// Task 4 is being polled, by a thread that has called `called` from `app::work`.
fn sample(ms: u64, called: &str, inputs: Vec<Input>) -> Sample {
    let mut thread = fixtures::thread(10, ThreadRole::TokioWorker, Activity::Running, called);
    thread.cpu_us = Some(ms * 1000);
    let mut task = fixtures::task(4, "app::work", 9);
    task.state = Some(TaskState::Running);
    let polling = (thread, Some(4), Some(ms));
    Sample { inputs: vec![TaskInputs { task: 4, inputs }], ..fixtures::sample(ms, vec![task], vec![polling]) }
}

#[test]
fn a_loop_on_a_closed_channel_is_found() {
    let samples = [sample(0, "core::fmt::write", vec![closed()]), sample(200, RECV, vec![closed()])];
    assert!(is_undecided(&samples[..1]));
    let found = fixtures::reported(check(&samples));
    assert_eq!(
        found[0].summary,
        "Task 4 is polled without pause at `app::work at src/work.rs:9`: `requests` is empty and has no sender any \
         more, so that polling it returns at once, each time"
    );
    assert!(!is_undecided(&samples));
}

#[test]
fn a_task_that_has_yielded_is_looked_at_again() {
    let sample = |kind| {
        let mut task = fixtures::task(4, "app::spins", 9);
        task.state = Some(TaskState::Idle);
        task.waits_on = vec![WaitsOn { kind, ..WaitsOn::default() }];
        fixtures::sample(0, vec![task], Vec::new())
    };
    assert!(is_undecided(&[sample(ResourceKind::Yield)]));
    assert!(!is_undecided(&[sample(ResourceKind::Notify)]));
}

#[test]
fn other_inputs_that_bring_something_are_no_loop() {
    let other = |progress| input(Source::Channel, "jobs", false, progress);
    let samples = |then, now| {
        [sample(0, RECV, vec![closed(), other(then)]), sample(200, RECV, vec![closed(), other(now)])]
    };
    assert_eq!(check(&samples(1, 1)).len(), 1);
    assert_eq!(check(&samples(1, 2)), []);
    let unknown = Input { progress: None, ..other(1) };
    let samples =
        [sample(0, RECV, vec![closed(), unknown.clone()]), sample(200, RECV, vec![closed(), unknown])];
    assert_eq!(check(&samples), []);
}

#[test]
fn a_task_that_is_never_seen_to_take_from_it_is_no_loop() {
    let samples = |called: &str| [sample(0, called, vec![closed()]), sample(200, called, vec![closed()])];
    assert_eq!(check(&samples("core::fmt::write")), []);
    assert_eq!(check(&samples("tokio::sync::oneshot::recv")), []);
    let mut samples = samples(RECV);
    samples[1].threads[0].cpu_us = Some(10_000);
    assert_eq!(check(&samples), [], "its thread uses no processor time");
}

#[test]
fn a_task_that_calls_other_functions_of_the_program_is_no_loop() {
    let mut samples = [sample(0, RECV, vec![closed()]), sample(200, RECV, vec![closed()])];
    samples[0].threads[0].frames[0].function = Some("app::compute".to_owned());
    samples[0].threads[0].frames[0].own = true;
    assert_eq!(check(&samples), []);
}

#[test]
fn open_channels_and_tasks_that_rest_are_no_loop() {
    let open = input(Source::Channel, "requests", false, 3);
    assert_eq!(check(&[sample(0, RECV, vec![closed()]), sample(200, RECV, vec![open])]), []);
    let mut idle = sample(0, RECV, vec![closed()]);
    idle.inputs.clear();
    let busy = |ms| sample(ms, RECV, vec![closed()]);
    assert_eq!(check(&[idle.clone(), busy(200)]), []);
    assert_eq!(check(&[idle.clone(), idle.clone(), idle.clone(), busy(200), busy(300)]), []);
    assert_eq!(
        check(&[idle, busy(200), busy(300)]).len(),
        1,
        "it looks idle for a moment when its budget is used up"
    );
    assert_eq!(
        check(&[sample(150, RECV, vec![closed()]), sample(200, RECV, vec![closed()])]),
        [],
        "too soon"
    );
}

#[test]
fn a_socket_is_at_its_end_if_nothing_is_left_to_be_read() {
    let read = "tokio::net::tcp::stream::TcpStream::poll_read_priv";
    let samples = |left: Option<u64>| {
        let file = || vec![Input { unread: left, ..input(Source::File, "stream", true, 5) }];
        [sample(0, read, file()), sample(200, read, file())]
    };
    assert_eq!(check(&samples(Some(1))).len(), 1);
    assert_eq!(check(&samples(Some(4096))), []);
    assert_eq!(check(&samples(None)), []);
}

#[test]
fn a_loop_that_hardly_gets_a_processor_is_found() {
    let sample = |ms: u64, queued_us| {
        let mut sample = sample(ms, RECV, vec![closed()]);
        let thread = sample.threads.iter_mut().find(|thread| thread.tid == 10).unwrap();
        (thread.cpu_us, thread.queued_us) = (Some(ms * 20), queued_us);
        sample
    };
    assert_eq!(check(&[sample(0, None), sample(200, None)]), [], "it sleeps most of the time");
    assert_eq!(check(&[sample(0, Some(0)), sample(200, Some(1000))]), []);
    assert_eq!(check(&[sample(0, Some(0)), sample(200, Some(150_000))]).len(), 1);
}

#[test]
fn a_task_is_observed_whose_thread_never_sleeps() {
    let open = || vec![input(Source::Channel, "requests", false, 3)];
    let observed = |queued: [u64; 2]| {
        let of = |ms: u64, queued_us: u64| {
            let mut sample = sample(ms, RECV, open());
            let thread = sample.threads.iter_mut().find(|thread| thread.tid == 10).unwrap();
            (thread.cpu_us, thread.queued_us) = (Some(ms * 200), Some(queued_us));
            sample
        };
        let [first, last] = queued;
        observe(&[of(0, first), of(200, last)], &HashSet::new()).map(|found| found.tasks)
    };
    assert_eq!(observed([0, 100_000]), None, "it slept for a third of the time");
    assert_eq!(observed([0, 150_000]), Some(vec![4]));
}
