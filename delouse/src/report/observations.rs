//! Observations as people read them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::{does, finished};
use super::format::{self, count, count_waiting, counted, in_place, millis, size, task, upper};
use super::kinds;
use crate::tasks::Waiting;
use crate::waits::{ClosedSocket, Held, Keeper, Observation, ObservationKind, Observed, TaskIds, UnreadBody};

/// The most ids of tasks in one observation.
const MAX_IDS: usize = 64;

/// Something that is true and may be wrong: a person who knows the program has to judge it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct ObservationReport {
    /// What kind of observation.
    pub kind: ObservationKind,
    /// One sentence: what was observed, of which tasks, at which line of the program.
    pub summary: String,
    /// Ids of the tasks that it is about, the first 64.
    pub tasks: Vec<u64>,
    /// How many tasks, timers or connections it is about.
    pub count: usize,
    /// How long the one that has waited longest has waited, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

impl From<Observation> for ObservationReport {
    fn from(of: Observation) -> Self {
        let summary = upper(&sentence(&of));
        let kind = of.fact.kind();
        let Observation { mut tasks, count, waiting, fact: _ } = of;
        tasks.truncate(MAX_IDS);
        Self { kind, summary, tasks, count, waiting }
    }
}

fn sentence(of: &Observation) -> String {
    let tasks = counted(&TaskIds::of(of.tasks.iter().copied()));
    let time = format::waiting(of.waiting).map(|time| format!(" {time}")).unwrap_or_default();
    match &of.fact {
        Observed::Shutdown { task: waiter, place, name, awaited } => {
            let place = in_place(place.as_ref());
            let list = awaited.iter().map(|of| {
                let place = in_place(of.place.as_ref());
                let kind = of.resource.kind;
                let what = match kind.is_outside() {
                    true => kinds::words(kind).wanted.to_owned(),
                    false => kinds::named(kind, &of.resource.id),
                };
                format!("{} waits{place} for {what}", task(of.task))
            });
            let list: Vec<String> = list.collect();
            format!(
                "{} waits{place} in {name}, which ends when {tasks} {}: {}",
                task(*waiter),
                if of.tasks.len() == 1 { "ends" } else { "end" },
                list.join("; ")
            )
        }
        Observed::BlockedThreads { thread, lasted_ms } => {
            let does = does(thread).unwrap_or_default();
            let name = if thread.name.is_empty() { String::new() } else { format!(" ({})", thread.name) };
            let more = match of.count.saturating_sub(1) {
                0 => String::new(),
                more => format!("; {} there, too", count_waiting(more, "other thread")),
            };
            format!("thread {}{name} {does}, for {} or more{more}", thread.tid, millis(*lasted_ms))
        }
        Observed::OverdueTimers { place, places, by_ms } => {
            let by = if of.count == 1 { "" } else { "up to " };
            let place = in_place(place.as_ref());
            let others = match places.saturating_sub(1) {
                0 => String::new(),
                others => format!(" and at {}", count(others, "other place")),
            };
            format!(
                "{} {} overdue by {by}{}, and {tasks} {} not woken{place}{others}: these futures are not polled, or no \
                 thread drives the timers of their runtime",
                count(of.count, "timer"),
                if of.count == 1 { "is" } else { "are" },
                millis(*by_ms),
                if of.tasks.len() == 1 { "was" } else { "were" },
            )
        }
        Observed::LongWait { place, resource, held } => {
            let words = kinds::words(resource.kind);
            let (verb, longest) = if of.tasks.len() == 1 { ("has", "") } else { ("have", ", the longest") };
            let place = in_place(place.as_ref());
            format!(
                "{tasks} {verb} waited for {}{place}{longest}{time}{}",
                words.wanted,
                holder(held.as_ref())
            )
        }
        Observed::NoPermits { place, wanted, free } => {
            let place = in_place(place.as_ref());
            let verb = if of.count == 1 { "waits" } else { "wait" };
            format!(
                "{tasks} {verb} for {} of a semaphore{place}: {free} {} free, and no task was found that holds one. They \
                 were forgotten, or more are wanted than there are",
                count(usize::try_from(*wanted).unwrap_or(usize::MAX), "permit"),
                if *free == 1 { "is" } else { "are" },
            )
        }
        Observed::Busy { place, ended, used_ms, over_ms } => {
            let place = in_place(place.as_ref());
            let ended = match ended {
                Some(variable) => format!(", and `{variable}`, which it takes from, has ended"),
                None => String::new(),
            };
            let task = of.tasks.first().map(|id| task(*id)).unwrap_or_default();
            format!(
                "{task} was being polled, or waited to be polled, in every sample{place}, and the threads of runtimes \
                 used {} of processor time in {}{ended}: it may be polled without pause",
                millis(*used_ms),
                millis(*over_ms)
            )
        }
        Observed::BlockedChild { pid, place } => {
            let place = in_place(place.as_ref());
            format!(
                "{tasks} waits{time}{place} for the end of process {pid}, which waits until something reads from a pipe: \
                 if that is a pipe of this program, read it while you wait"
            )
        }
        Observed::FinishedTasks { function, spawned_at, keeper } => {
            let kept = keeper.as_ref().map(|Keeper { task, variable, place, handles }| {
                format!(": {}", finished::kept(*task, variable, place.as_deref(), *handles))
            });
            format!(
                "{} tasks{} have finished, and handles or a JoinSet keep their results{}",
                format::thousands(of.count),
                finished::tasks(function.as_ref(), spawned_at.as_deref()),
                kept.unwrap_or_default()
            )
        }
        Observed::Contention { place, resource, held } => {
            let words = kinds::words(resource.kind);
            let place = in_place(place.as_ref());
            format!("{tasks} wait for {}{place}{}", words.wanted, holder(held.as_ref()))
        }
        Observed::Http2Window { place, bytes, bodies } => {
            let verb = if of.count == 1 { "waits" } else { "wait" };
            let place = in_place(place.as_ref());
            format!(
                "{tasks} {verb}{time}{place} for an HTTP/2 connection that can receive no more: {} of bodies have come and are \
                 not read{}",
                size(*bytes),
                unread_bodies(bodies)
            )
        }
        Observed::UnreadData { place, bytes } => {
            let verb = if of.count == 1 { "waits" } else { "wait" };
            let place = in_place(place.as_ref());
            format!(
                "{tasks} {verb}{time}{place} to send to an end that does not read: {} were not taken",
                size(*bytes)
            )
        }
        Observed::ClosedByPeer { peers, socket } => {
            let more = of.count.saturating_sub(peers.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let (verb, it) = if of.count == 1 { ("is", "it") } else { ("are", "them") };
            let kept = socket.as_ref().map(|ClosedSocket { variable, place, .. }| {
                let (keep, for_example) =
                    if of.tasks.len() == 1 { ("keeps", "") } else { ("keep", ", for example") };
                let place = in_place(place.as_ref());
                format!("; {tasks} {keep} {it}{for_example} in `{variable}`{place}")
            });
            format!(
                "{} {verb} in CLOSE_WAIT: the other end has closed {it} and the program has not ({}{more}){}",
                count(of.count, "connection"),
                peers.join(", "),
                kept.unwrap_or_default()
            )
        }
        Observed::Growth { place, new, over_ms } => {
            let place = in_place(place.as_ref());
            format!(
                "{} tasks wait{place}, {} of them spawned in the last {}, and none of the older ones has left",
                format::thousands(of.count),
                format::thousands(*new),
                millis(*over_ms)
            )
        }
        Observed::NotJudged => format!("{} could not be judged", count(of.count, "task")),
    }
}

/// `: task 4 holds it, and waits for input or output in app::refresh at src/main.rs:9`.
fn holder(held: Option<&Held>) -> String {
    let Some(Held { by, certain, place, waits_for }) = held else { return String::new() };
    let verb = if *certain { "holds" } else { "may hold" };
    let place = in_place(place.as_ref());
    format!(": {} {verb} it, and waits for {}{place}", task(*by), kinds::words(*waits_for).wanted)
}

/// `: that in `first` of the main future, in app::fetch at src/main.rs:7`.
fn unread_bodies(bodies: &[UnreadBody]) -> String {
    let body = |body: &UnreadBody| {
        let place = body.place.as_ref().map(|place| format!(", in {place}")).unwrap_or_default();
        format!("`{}` of {}{place}", body.variable, task(body.task))
    };
    let bodies: Vec<String> = bodies.iter().map(body).collect();
    if bodies.is_empty() { String::new() } else { format!(": {}", bodies.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_several() {
        let of = |count: usize, waiting: u64, fact| {
            let waiting = (waiting > 0).then(|| {
                serde_json::from_value(serde_json::json!({ "at_least_ms": waiting, "exact": false })).unwrap()
            });
            ObservationReport::from(Observation { tasks: (1..=count as u64).collect(), count, waiting, fact })
                .summary
        };
        let timers = || Observed::OverdueTimers { place: None, places: 1, by_ms: 7800 };
        assert!(of(1, 0, timers()).starts_with("1 timer is overdue by 7.8 s, and task 1 was not woken: "));
        assert!(
            of(2, 0, timers())
                .starts_with("2 timers are overdue by up to 7.8 s, and 2 tasks (1, 2) were not woken")
        );
        assert_eq!(
            of(1, 42_000, Observed::LongWait { place: None, resource: Default::default(), held: None }),
            "Task 1 has waited for something that delouse does not know for at least 42.0 s"
        );
        assert_eq!(
            of(1, 0, Observed::ClosedByPeer { peers: vec!["127.0.0.1:9".to_owned()], socket: None }),
            "1 connection is in CLOSE_WAIT: the other end has closed it and the program has not (127.0.0.1:9)"
        );
        let place = crate::waits::CodeLocation { function: "app::relay".to_owned(), ..Default::default() };
        let socket =
            ClosedSocket { fd: 7, task: 1, variable: "inbound".to_owned(), place: Some(place.into()) };
        let peers = vec!["127.0.0.1:9".to_owned(), "127.0.0.1:10".to_owned()];
        assert!(of(2, 0, Observed::ClosedByPeer { peers, socket: Some(socket) }).ends_with(
            "(127.0.0.1:9, 127.0.0.1:10); 2 tasks (1, 2) keep them, for example in `inbound` in app::relay"
        ));
        assert_eq!(of(3, 0, Observed::NotJudged), "3 tasks could not be judged");
    }
}
