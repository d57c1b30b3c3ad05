//! One sentence for each fact.

use super::blocking_pool;
use super::parts::{at, one, sampled, waiter};
use crate::report::format::{self, count, count_waiting, in_place, list, millis, task, tasks, thousands};
use crate::report::kinds;
use crate::tasks::ResourceKind;
use crate::waits::{Doubt, Evidence, Finding, FindingKind, Party, TaskWait, ThreadAt};

pub(super) fn sentence(finding: &Finding, fact: &Evidence) -> String {
    match fact {
        Evidence::Waits(wait) if finding.kind == FindingKind::LeakedTasks => leaked(wait),
        Evidence::Waits(wait) => waits(wait),
        Evidence::NotPolled => {
            "the future that holds it is suspended, and its task polls another future".to_owned()
        }
        Evidence::StuckBranches(stuck) => format!(
            "{} stuck in a branch of a `join!` only, while its other branches continue: {}",
            are(stuck.count, "task"),
            list(stuck)
        ),
        Evidence::Circle(circle) => {
            format!("{} for one another in this way: {}", count_waiting(circle.count, "task"), list(circle))
        }
        Evidence::Behind(behind) => {
            format!("{} behind them: {}", count_waiting(behind.count, "more task"), list(behind))
        }
        Evidence::AlikeGroups { groups, tasks } => match groups {
            1 => format!("1 group of {tasks} like this"),
            groups => format!("{groups} groups of {tasks} like this"),
        },
        Evidence::OwnReferences { counted } => format!(
            "all references to what they share are their own: {}",
            if *counted { "the counters agree" } else { "nothing else in memory refers to it" }
        ),
        Evidence::NoWaker { .. } => {
            "idle, and no reference to it is a waker: the scheduler's list and handles account for all"
                .to_owned()
        }
        Evidence::JoinHandle => "a `JoinHandle` of it exists, which could abort it".to_owned(),
        Evidence::Doubt { why } => format!("not certain: {}", doubt(why)),
        Evidence::InPoll { .. }
        | Evidence::Called { .. }
        | Evidence::CallPath { .. }
        | Evidence::NoStack { .. }
        | Evidence::ProcessorTime { .. }
        | Evidence::BlockInPlace
        | Evidence::BlocksThread { .. }
        | Evidence::Queued(_)
        | Evidence::NoEventLoop { .. }
        | Evidence::DropsRuntime { .. }
        | Evidence::PoolFull { .. }
        | Evidence::BusyThreads { .. }
        | Evidence::QueuedCalls { .. }
        | Evidence::WaitForQueue
        | Evidence::MoreWaiters { .. } => of_threads(fact),
        Evidence::Lock { resource, waiters, holders } => {
            lock(&resource.id, *waiters, holders, blocked_thread(finding))
        }
        Evidence::NotifiedBefore { .. } | Evidence::BarrierShort { .. } => super::signals::sentence(fact),
        Evidence::Finished { .. } | Evidence::Kept { .. } => super::finished::sentence(fact),
        Evidence::PolledWithoutPause { .. } | Evidence::Ended { .. } => super::busy_loop::sentence(fact),
        Evidence::NotRun { .. }
        | Evidence::NoPolls { .. }
        | Evidence::BlockedDriver { .. }
        | Evidence::NoDriver
        | Evidence::Overloaded { .. }
        | Evidence::OpenFiles { .. }
        | Evidence::IoAt { .. }
        | Evidence::Growth { .. }
        | Evidence::SpawnedAt { .. } => of_crowds(fact),
    }
}

/// Facts about threads that are blocked.
fn of_threads(fact: &Evidence) -> String {
    match fact {
        Evidence::InPoll { samples, lasted_ms, one_poll, .. } => format!(
            "{}: the same thread {}",
            sampled(*samples, *lasted_ms),
            if *one_poll {
                "inside the same poll each time, and its scheduler took no other task meanwhile"
            } else {
                "polling the same task each time, though perhaps not in one poll"
            }
        ),
        Evidence::Called { place, function } => format!("{place} called {function}"),
        Evidence::CallPath { places } => {
            places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", called by ")
        }
        Evidence::NoStack { thread, reason } => {
            format!("the stack of thread {thread} is not available: {reason}")
        }
        Evidence::ProcessorTime { used_ms } => {
            format!("the thread used {} of processor time meanwhile", millis(*used_ms))
        }
        Evidence::BlockInPlace => {
            "it is in block_in_place: other tasks continue, but nothing else of this task does".to_owned()
        }
        Evidence::BlocksThread { task: of, thread, resource, place, called } => {
            let called = called.as_ref().map(|called| format!(", which called {called}")).unwrap_or_default();
            format!("{} blocks thread {thread} for {} in {place}{called}", task(*of), resource.id)
        }
        Evidence::Queued(queued) => format!(
            "{} {} for a worker in each sample",
            tasks(queued),
            if queued.count == 1 { "was woken and waits" } else { "were woken and wait" }
        ),
        Evidence::NoEventLoop { runtime, waiting, overdue, overdue_ms } => {
            let late = match overdue {
                0 => String::new(),
                n => format!("; {} overdue, by up to {}", are(*n, "timer"), millis(*overdue_ms)),
            };
            format!(
                "no thread waits for the I/O and the timers of {runtime} meanwhile, for which {}{late}",
                count_waiting(*waiting, "task")
            )
        }
        Evidence::DropsRuntime { samples, lasted_ms, .. } => {
            format!("{}: the same thread waits for the same calls each time", sampled(*samples, *lasted_ms))
        }
        Evidence::PoolFull { samples, lasted_ms, .. } => {
            format!("{}: all its threads in the same calls each time", sampled(*samples, *lasted_ms))
        }
        Evidence::BusyThreads { thread, threads, called, call, tasks: of } => {
            let name =
                if *threads == 1 { format!("thread {}", thread.tid) } else { format!("{threads} threads") };
            let called = called.as_ref().map(|called| format!(", which called {called}")).unwrap_or_default();
            let activity = blocking_pool::activity(thread, *threads);
            format!("{name} {activity}{called}, in {}{}", tasks(of), blocking_pool::named(call.as_deref()))
        }
        Evidence::WaitForQueue => {
            "each of them waits for the end of a call in the queue, which only they could take".to_owned()
        }
        Evidence::QueuedCalls { call, tasks: of } => {
            let are = if of.count == 1 { "is" } else { "are" };
            format!("{} {are} in the queue{}", tasks(of), blocking_pool::named(call.as_deref()))
        }
        Evidence::MoreWaiters { count } => {
            format!("{} for what is held", count_waiting(*count, "more task"))
        }
        _ => String::new(),
    }
}

/// Facts about many tasks, and what they use up.
fn of_crowds(fact: &Evidence) -> String {
    match fact {
        Evidence::NotRun { samples, lasted_ms, .. } => {
            format!("{}: the same tasks at the same places each time", sampled(*samples, *lasted_ms))
        }
        Evidence::NoPolls { runtime } => format!("no task of the runtime {runtime} was being polled"),
        Evidence::BlockedDriver { thread } => {
            let at = thread.place.as_ref().map(|place| format!(" from {place}")).unwrap_or_default();
            format!("thread {} does not return{at}", thread.tid)
        }
        Evidence::NoDriver => "no thread was found that polls their runtime".to_owned(),
        Evidence::Overloaded { runtime } => format!("they are of the runtime {runtime}"),
        Evidence::OpenFiles { kinds, .. } => {
            let mut kinds: Vec<_> = kinds.iter().collect();
            kinds.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
            let kinds: Vec<String> = kinds.into_iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            format!("open are {}", kinds.join(", "))
        }
        Evidence::IoAt { place, tasks: of } => format!(
            "{} at {place} for a socket or pipe of their own: {}",
            count_waiting(of.count, "task"),
            list(of)
        ),
        Evidence::Growth { now, new, over_ms, place } => format!(
            "{}{}: {} were spawned in the last {}, {} before, and none of these has left the place",
            count_waiting(*now, "task"),
            in_place(place.as_deref()),
            thousands(*new),
            millis(*over_ms),
            thousands(now.saturating_sub(*new)),
        ),
        Evidence::SpawnedAt { place } => format!("all were spawned at {}", super::spawned(place)),
        _ => String::new(),
    }
}

/// `task 4 waits at `app::a at app.rs:7` for mutex-1, which task 7 (`guard`, a MutexGuard, in …) holds`.
fn waits(wait: &TaskWait) -> String {
    let kind = wait.resource.kind;
    let holder = wait.holders.first();
    let by = holder.map(party).unwrap_or_else(|| "something".to_owned());
    let waiter = waiter(wait);
    let at = at(wait.place.as_deref());
    let name = &awaited(wait);
    let Some(holder) = holder else { return format!("{waiter} waits{at} for {name}") };
    match kind {
        ResourceKind::Thread => {
            format!("{waiter} waits{at} for {name}, which alone could poll it and which {by} blocks")
        }
        ResourceKind::Join => format!("{waiter} waits{at} for {by} to end"),
        _ => {
            let relation = relation(wait, holder).of(&by, holder.certain);
            let no_permit = if adds_permits(wait) { no_permit(wait) } else { "" };
            let writer = if wait.behind_writer {
                "; both only read, but a task that waits to write is between them, and lets no new reader in"
            } else {
                ""
            };
            format!("{waiter} waits{at} for {name}, {no_permit}{relation}{writer}")
        }
    }
}

/// What a holder has to do with what a task waits for.
pub(super) fn relation(wait: &TaskWait, holder: &Party) -> kinds::Relation {
    match wait.future {
        Some(_) => kinds::REACHES_WAKER,
        None => kinds::relation(wait.resource.kind, holder),
    }
}

/// `mutex-1`; the future, if it is not known what that waits for.
pub(super) fn awaited(wait: &TaskWait) -> String {
    match &wait.future {
        Some(future) => format!("`{future}`"),
        None => match wait.resource.kind {
            kind @ (ResourceKind::Connection | ResourceKind::Http2Stream | ResourceKind::Http2Connection) => {
                kinds::named(kind, &wait.resource.id)
            }
            _ => wait.resource.id.clone(),
        },
    }
}

/// Whether the holder has no permit of the semaphore, but the semaphore itself.
pub(super) fn adds_permits(wait: &TaskWait) -> bool {
    wait.resource.kind == ResourceKind::Semaphore && wait.holders.iter().any(Party::is_access)
}

/// That no handle with a permit was found means that none exists only where every task was read.
pub(super) fn no_permit(wait: &TaskWait) -> &'static str {
    if wait.all_known { "of which no task has a permit, and " } else { "of which no permit was found, and " }
}

/// What a leaked task waits for, and which tasks could end that.
fn leaked(wait: &TaskWait) -> String {
    let holders: Vec<String> = wait.holders.iter().map(party).collect();
    let more = if wait.more_holders > 0 { format!(" and {} more", wait.more_holders) } else { String::new() };
    format!(
        "{} waits{} for {}, which {}{}{more} can wake",
        waiter(wait),
        at(wait.place.as_deref()),
        awaited(wait),
        if wait.all_known { "only " } else { "" },
        holders.join(" and ")
    )
}

/// ``task 7 (`guard`, a MutexGuard, in `app::b at app.rs:9`)``.
pub(super) fn party(party: &Party) -> String {
    let name = match (party.task, &party.thread) {
        (Some(id), _) => task(id),
        (None, Some(thread)) => format!("thread {}", thread.tid),
        (None, None) => "something outside of all tasks".to_owned(),
    };
    if party.variable.is_empty() && party.place.is_none() {
        return name;
    }
    let place = party.place.as_ref().map(|place| format!(", in `{place}`")).unwrap_or_default();
    if let ("(awaited)", Some(place)) = (party.variable.as_str(), &party.place) {
        return format!("{name} (in `{place}`)");
    }
    if party.handle.is_empty() {
        return format!("{name} (`{}`{place})", party.variable);
    }
    let article = if party.handle.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    format!("{name} (`{}`, {article} {}{place})", party.variable, party.handle)
}

/// The thread of a finding that is blocked.
fn blocked_thread(finding: &Finding) -> Option<i32> {
    finding.evidence.iter().find_map(|fact| match fact {
        Evidence::InPoll { thread, .. } => Some(thread.tid),
        _ => None,
    })
}

/// What holds a lock that the thread `blocked` waits for.
fn lock(id: &str, waiters: usize, holders: &[Party], blocked: Option<i32>) -> String {
    let more = if waiters > 1 { format!(", for which {waiters} threads wait") } else { String::new() };
    let lock = format!("{id}{more}");
    let holders: Vec<String> = holders.iter().map(|party| holds_lock(party, blocked)).collect();
    match holders.as_slice() {
        [] => format!(
            "no other task or thread was found that holds {lock}: perhaps this thread holds it itself"
        ),
        [only] => format!("{lock}: {only}"),
        several => format!("{lock}: one of these; {}", several.join("; ")),
    }
}

/// ``task 7 holds it: `guard` (MutexGuard) in app::f at src/app.rs:9``, `thread 12 (db-pool) may hold it, …`.
fn holds_lock(party: &Party, blocked: Option<i32>) -> String {
    if party.thread.as_ref().is_some_and(|thread| Some(thread.tid) == blocked) {
        return format!("this thread may hold it itself: {}", on_stack(party));
    }
    let does = party.thread.as_ref().and_then(does).map(|does| format!("; it {does}")).unwrap_or_default();
    match (party.task, &party.thread) {
        (Some(id), None) => {
            let sure = if party.certain { "holds" } else { "seems to hold" };
            let place = in_place(party.place.as_deref());
            format!("{} {sure} it: `{}` ({}){place}", task(id), party.variable, party.handle)
        }
        (Some(id), Some(thread)) => {
            format!("thread {}, which polls {}, may hold it: {}{does}", thread.tid, task(id), on_stack(party))
        }
        (None, Some(thread)) => {
            let name = if thread.name.is_empty() { String::new() } else { format!(" ({})", thread.name) };
            format!("thread {}{name} may hold it: {}{does}", thread.tid, on_stack(party))
        }
        (None, None) => "something outside of all tasks".to_owned(),
    }
}

fn on_stack(party: &Party) -> String {
    match party.handle.as_str() {
        "" => "the lock's address is on its stack".to_owned(),
        handle => format!("`{}` ({handle})", party.variable),
    }
}

/// `sleeps in app::work at src/work.rs:9`.
pub(in crate::report) fn does(thread: &ThreadAt) -> Option<String> {
    let place = in_place(thread.place.as_ref());
    thread.activity.map(|activity| format!("{}{place}", one(activity)))
}

/// `2 tasks are`.
fn are(n: usize, what: &str) -> String {
    format!("{} {}", count(n, what), if n == 1 { "is" } else { "are" })
}

/// ` (in 9 min 52 s)`.
pub(super) fn in_time(ms: Option<i64>) -> String {
    ms.map(|ms| format!(" ({})", format::in_time(ms))).unwrap_or_default()
}

fn doubt(why: &Doubt) -> String {
    match why {
        Doubt::MainFuture => {
            "that the main future waits there is concluded from its thread, which is idle".to_owned()
        }
        Doubt::RecognisedFuture { thread } => format!(
            "the future that thread {thread} drives was recognised by its contents: debug information does not have its place"
        ),
        Doubt::TornCapture => {
            "memory was read while the program ran, each task at a different moment".to_owned()
        }
        Doubt::StaleHandle { variable, resource } => {
            format!("`{variable}` may have been dropped or moved before, and others can reach {resource}")
        }
        Doubt::TooManyHandles { resource } => format!(
            "more handles of {resource} are in variables than exist; one that was dropped or moved may still be listed"
        ),
        Doubt::HeldElsewhere { resource } => {
            format!("something outside of all tasks may hold {resource}")
        }
        Doubt::AddressOnStack { resource } => {
            format!("the holder of {resource} is concluded from its address, which is on a stack")
        }
        Doubt::CanAddPermits { task: of, resource } => {
            let by = of.map_or_else(|| "something outside of these tasks".to_owned(), task);
            format!("{by} can reach {resource}, and could add permits")
        }
        Doubt::MovedVariable { variable } => format!(
            "a variable of the function that has `{variable}` was moved or dropped, perhaps this one"
        ),
        Doubt::RunningTask { task: of, resource } => {
            format!("{} is running, and could hold {resource}", task(*of))
        }
        Doubt::MayDoMore => "the task may also do other work, which delouse does not see".to_owned(),
        Doubt::ByWakers { futures } => {
            let futures: Vec<String> = futures.iter().map(|future| format!("`{future}`")).collect();
            let futures = if futures.is_empty() { "their futures".to_owned() } else { futures.join(", ") };
            format!(
                "delouse does not know {futures}; that nothing else can wake the tasks is concluded from where their wakers are"
            )
        }
        Doubt::TimerNotPolled { task: of, over_ms } => format!(
            "a timer of {} was over {} ago, and the task was not woken: it seems not to poll the future that waits for that timer",
            task(*of),
            millis(*over_ms)
        ),
        Doubt::EndsByConnection => {
            "a client that closes its connection ends one of these waits; nothing else was found that does".to_owned()
        }
        Doubt::EndsByTimeout { in_ms } => {
            format!("a timeout{} will end it, but nothing else", in_time(*in_ms))
        }
        Doubt::OwnConnection => "both ends of a connection are in this program, and nothing had arrived in either direction when \
                                 the kernel was asked, after the capture"
            .to_owned(),
        Doubt::MayBeWoken => {
            "what these threads wait for may still come: nothing in memory shows what could end their waits".to_owned()
        }
        Doubt::CanBeAborted(of) => {
            format!("a `JoinHandle` or `AbortHandle` of {} exists, which could abort it", tasks(of))
        }
        Doubt::AddressElsewhere => {
            "the address of what they share is elsewhere in memory, too: in a stale handle, or in one that was not found"
                .to_owned()
        }
        Doubt::TooManyReferences => {
            "more references are in variables than exist; one that was dropped or moved may still be listed"
                .to_owned()
        }
        Doubt::MissingReferences => {
            "more references to what they share exist than were found".to_owned()
        }
    }
}
