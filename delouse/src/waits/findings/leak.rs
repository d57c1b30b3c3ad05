//! Leaked tasks: those that keep one another alive, and that nothing else can wake.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Judge;
use super::sentences::{self, holder, ids};
use crate::tasks::ResourceKind;
use crate::waits::handles::Roles;
use crate::waits::holders::Account;
use crate::waits::islands::Island;
use crate::waits::liveness;
use crate::waits::words::{self, count};
use crate::waits::{Finding, FindingKind, Severity};

/// Sentences of one pattern.
const MAX_LINES: usize = 12;

impl Judge<'_, '_, '_, '_, '_> {
    pub(super) fn leak(&mut self, islands: &[Island]) -> Finding {
        let members = |island: &Island| -> Vec<u32> {
            island.vertices.iter().filter_map(|vertex| self.graph.task(*vertex)).collect()
        };
        let all: Vec<u32> = islands.iter().flat_map(members).collect();
        let behind: Vec<u32> = islands.iter().flat_map(|island| island.behind.iter().copied()).collect();
        let tasks = self.ids(all.iter().copied().chain(behind.iter().copied()));
        let first = islands.iter().min_by_key(|island| island.vertices.len());
        let gaps = self.leak_gaps(islands, &all);
        let mut evidence = Vec::new();
        let mut told = HashSet::new();
        for task in first.map(members).unwrap_or_default() {
            let pattern = self.pattern(task);
            if evidence.len() < MAX_LINES && told.insert(pattern) {
                evidence.extend(self.leaked(task, gaps.is_empty()));
            }
        }
        let alike: BTreeMap<usize, usize> = islands.iter().fold(BTreeMap::new(), |mut sizes, island| {
            *sizes.entry(members(island).len()).or_default() += 1;
            sizes
        });
        let sizes: Vec<String> = alike
            .iter()
            .map(|(size, groups)| match groups {
                1 => format!("one group of {size}"),
                groups => format!("{groups} groups of {size}"),
            })
            .collect();
        if islands.len() > 1 {
            evidence.push(format!("{} like this", sizes.join(", ")));
        }
        let holders = self.graph.holders;
        let mut accounts =
            self.graph.objects(islands).into_iter().map(|object| holders.account_of_object(object));
        let why = match accounts.all(|account| account == Account::Exact) {
            true => "the counters agree",
            false => "nothing else in memory refers to it",
        };
        evidence.push(format!("all references to what they share are their own: {why}"));
        if !behind.is_empty() {
            let ids_behind = self.ids(behind.iter().copied());
            evidence.push(sentences::behind(&ids_behind));
        }
        let severity = if gaps.is_empty() { Severity::Certain } else { Severity::Suspected };
        if !gaps.is_empty() {
            evidence.retain(|line| !line.starts_with("all references"));
        }
        evidence.extend(gaps);
        let places: BTreeSet<String> =
            first.map(members).unwrap_or_default().into_iter().map(|task| self.pattern(task)).collect();
        let places: Vec<String> = places.into_iter().take(3).collect();
        let kinds: BTreeSet<ResourceKind> = islands
            .iter()
            .flat_map(|island| &island.vertices)
            .filter_map(|vertex| self.graph.wait(*vertex))
            .map(|wait| wait.kind)
            .collect();
        let certain = severity == Severity::Certain;
        let leaked = match (all.as_slice(), certain) {
            ([_], true) => "A task keeps itself alive, and nothing else can wake it".to_owned(),
            ([_], false) => "A task keeps itself alive, and nothing was found that can wake it".to_owned(),
            (all, certain) => {
                let nothing =
                    if certain { "nothing else can wake" } else { "nothing else was found that can wake" };
                format!("{} keep one another alive, and {nothing} them", count(all.len(), "task"))
            }
        };
        Finding {
            kind: FindingKind::LeakedTasks,
            severity,
            summary: format!("{leaked}: {}", places.join("; ")),
            tasks,
            evidence,
            remedy: Some(remedy(&kinds).to_owned()),
        }
    }

    /// What a leaked task waits for, and who could end that; `certain`: nothing else can.
    fn leaked(&mut self, task: u32, certain: bool) -> Vec<String> {
        let waits = self.teller.waits;
        let mut lines = Vec::new();
        for wait in waits.of_task(task).iter().take(4) {
            let edge = self.teller.edge(wait);
            let place = edge.place.map(|place| format!(" at `{place}`")).unwrap_or_default();
            let holders: Vec<String> = edge.holders.iter().take(4).map(holder).collect();
            // Of more holders, those that are named are not the only ones.
            let all = certain && edge.holders.len() <= 4 && edge.more_holders == 0;
            let more = (edge.holders.len() + edge.more_holders).saturating_sub(4);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!(
                "{} waits{place} for {}, which {}{}{more} can wake",
                words::name(self.teller.id(task)),
                edge.resource.id,
                if all { "only " } else { "" },
                holders.join(" and ")
            ));
        }
        lines
    }

    fn leak_gaps(&self, islands: &[Island], tasks: &[u32]) -> Vec<String> {
        let mut gaps = Vec::new();
        let held: Vec<u32> = tasks.iter().copied().filter(|task| self.may_be_ended(*task)).collect();
        if !held.is_empty() {
            let held = self.ids(held.into_iter());
            gaps.push(format!(
                "not certain: somebody has a `JoinHandle` or `AbortHandle` of {}, and could end it",
                ids(&held)
            ));
        }
        let objects = self.graph.objects(islands);
        if objects.iter().any(|object| self.remains.doubtful.contains(object)) {
            gaps.push(
                "not certain: the address of what they share stands elsewhere in memory, too; that may be what is left of a handle, or one that was not found"
                    .to_owned(),
            );
        }
        let account = |object: &u32| self.graph.holders.account_of_object(*object);
        let mut open = objects.iter().filter(|object| !self.graph.holders.is_confined(**object)).peekable();
        if open.peek().is_some() && open.all(|object| account(object) == Account::TooMany) {
            gaps.push("not certain: more references lie in variables than there are; one that was dropped or moved may still be listed".to_owned());
        } else if objects.iter().any(|object| matches!(account(object), Account::Missing | Account::Unknown))
        {
            gaps.push("not certain: there are more references to what they share than were found".to_owned());
        }
        gaps
    }

    /// Whether somebody else can still end a task.
    fn may_be_ended(&self, task: u32) -> bool {
        let Some(place) = self.teller.examination.places.get(task as usize) else { return true };
        let Some(header) = place.header else { return false };
        let holders = self.graph.holders;
        let stuck =
            |roles| holders.of_resource(header, roles).filter(|h| !self.liveness.is_alive(h.owner)).count();
        let found = holders.of_resource(header, Roles::ABORT).count();
        liveness::has_join_handle(place) && stuck(Roles::JOIN) == 0 || stuck(Roles::ABORT) < found
    }
}

fn remedy(kinds: &BTreeSet<ResourceKind>) -> &'static str {
    if kinds.contains(&ResourceKind::Semaphore) {
        "no permit of the semaphore was found: look for `forget()`, or for an `add_permits` that is not reached"
    } else {
        "drop the sender that a task keeps of its own channel, or hold it weakly; or abort these tasks when their work is over"
    }
}
