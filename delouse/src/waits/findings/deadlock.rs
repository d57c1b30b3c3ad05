//! Deadlocks and futurelocks: circles of tasks that wait for one another.

use std::collections::HashSet;

use super::{Judge, behind};
use crate::tasks::layout::handles::Roles;
use crate::tasks::{Origin, ResourceKind};
use crate::waits::account::Account;
use crate::waits::components::Component;
use crate::waits::location;
use crate::waits::wait::{Wait, Waker};
use crate::waits::{Doubt, Evidence, Finding, FindingKind, Holder, Severity, TaskIds, TaskWait};

/// One task of a circle, with what it waits for.
struct Link {
    wait: Wait,
    fact: TaskWait,
}

impl Judge<'_, '_, '_, '_, '_> {
    pub(super) fn deadlock(&mut self, component: &Component) -> Finding {
        let is_own = |task: u32| {
            let stack = self.task(task).map(|task| task.stack.as_ref()).unwrap_or_default();
            location::user_frame(stack).is_some_and(|frame| frame.origin == Origin::User)
        };
        let circle = self.graph.circle(component, is_own);
        let links = self.links(&circle);
        let unpolled = self.is_unpolled(&circle);
        let mut doubts = self.doubts(&links);
        let tasks = component.vertices.iter().filter_map(|vertex| self.graph.task(*vertex));
        let mut waits = tasks.flat_map(|task| self.edges.waits.of_task(task));
        if waits.any(|wait| wait.kind == ResourceKind::Connection) {
            doubts.push(Doubt::OwnConnection);
        }
        let of_tasks = links.iter().filter(|link| self.edges.threads.thread(link.wait.task).is_none());
        let mut in_order: Vec<u64> = of_tasks.map(|link| link.fact.task).collect();
        let count = links.len();
        let signals = self.signals(links.iter().map(|link| &link.wait));
        let mut evidence: Vec<Evidence> = links.into_iter().map(|link| Evidence::Waits(link.fact)).collect();
        evidence.extend(signals);
        evidence.extend(unpolled.then_some(Evidence::NotPolled));
        let parts = component.vertices.iter().copied().filter(|vertex| self.graph.is_part(*vertex));
        let parts = self.ids(parts.filter_map(|vertex| self.graph.task(vertex)));
        if !parts.is_empty() {
            evidence.push(Evidence::StuckBranches(TaskIds::of(parts)));
        }
        let members = self.ids(component.vertices.iter().filter_map(|vertex| self.graph.task(*vertex)));
        if members.len() > count {
            evidence.push(Evidence::Circle(TaskIds::of(members.iter().copied())));
        }
        let waiting = self.behind(std::slice::from_ref(component));
        evidence.extend(behind(&waiting));
        in_order.extend(members.into_iter().chain(waiting));
        let mut seen = HashSet::new();
        in_order.retain(|task| seen.insert(*task));
        let mut finding = Finding {
            kind: if unpolled { FindingKind::Futurelock } else { FindingKind::Deadlock },
            severity: Severity::Certain,
            tasks: in_order,
            evidence,
        };
        doubts.into_iter().for_each(|why| finding.doubt(why));
        finding
    }

    /// The tasks of a circle, each with the wait that leads to the next.
    fn links(&mut self, circle: &[u32]) -> Vec<Link> {
        let mut links = Vec::new();
        let tasks: Vec<usize> = (0..circle.len())
            .filter(|at| circle.get(*at).is_some_and(|v| self.graph.task(*v).is_some()))
            .collect();
        for (index, at) in tasks.iter().enumerate() {
            let vertex = |at: usize| circle.get(at % circle.len().max(1)).copied();
            let task = vertex(*at).and_then(|vertex| self.graph.task(vertex));
            let next_at = tasks.get((index + 1) % tasks.len().max(1)).copied().unwrap_or(*at);
            let next = vertex(next_at).and_then(|vertex| self.graph.task(vertex));
            let first = vertex(at + 1).and_then(|vertex| self.graph.wait(vertex));
            let (Some(task), Some(next), Some(first)) = (task, next, first) else { continue };
            let same = |wait: &&Wait| wait.key() == first.key() && wait.kind == first.kind;
            let own = vertex(*at).into_iter().flat_map(|vertex| self.graph.waits_of(vertex));
            let own: Vec<&Wait> = own.chain(self.edges.waits.for_thread(task)).filter(same).collect();
            let unmet = own.iter().find(|wait| !self.edges.has_been_given(wait)).or(own.first());
            let Some(wait) = unmet.copied() else { continue };
            let edge = self.edges.edge_in_finding(wait);
            let (next, thread) = self.edges.identity(next);
            let is_next = |holder: &&Holder| match next {
                Some(_) => holder.task == next,
                None => holder.task.is_none() && holder.thread == thread,
            };
            // The next task of the circle, as the holder.
            let unnamed = Holder { task: next.or(Some(0)), ..Holder::default() };
            let holder = edge.holders.iter().find(is_next).unwrap_or(&unnamed);
            let on = self.task(task).and_then(|task| task.waits_on.get(wait.leaf));
            let reads = wait.kind == ResourceKind::Rwlock && on.and_then(|on| on.wanted) == Some(1);
            let fact = TaskWait {
                task: self.edges.id(task),
                blocks: self.edges.threads.thread(task).is_some(),
                behind_writer: reads && holder.handle.ends_with("ReadGuard"),
                all_known: self.gaps.is_empty(),
                ..TaskWait::new(&edge, std::iter::once(holder))
            };
            links.push(Link { wait: wait.clone(), fact });
        }
        links
    }

    /// Whether the circle closes through a future that is not polled.
    fn is_unpolled(&self, circle: &[u32]) -> bool {
        let pairs = circle.iter().zip(circle.iter().cycle().skip(1));
        let mut arcs = pairs.filter_map(|(from, to)| {
            // If several arcs connect the two, one that is polled is enough.
            let between = self.graph.leads(*from).iter().filter(|arc| arc.to == *to);
            between.map(|arc| arc.unpolled).reduce(|all, one| all && one)
        });
        arcs.any(|unpolled| unpolled)
    }

    /// The reasons why a circle is not certain.
    fn doubts(&mut self, links: &[Link]) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        doubts.extend(self.by_wakers(links.iter().map(|link| &link.wait)));
        for Link { wait, fact } in links {
            if wait.is_by_wakers() {
                continue;
            }
            // What a thread has is known by addresses on its stack.
            if self.graph.holders.is_on_waiting_stack(wait) {
                doubts.push(Doubt::AddressOnStack { resource: fact.resource.id.clone() });
                continue;
            }
            let resource = || fact.resource.id.clone();
            let holder = fact.holders.first();
            let variable = || holder.map(|holder| holder.variable.clone()).unwrap_or_default();
            let account = self.edges.account(wait);
            match account {
                Account::Exact if self.graph.holders.is_proven(wait) => {}
                Account::Exact => {
                    doubts.push(Doubt::StaleHandle { variable: variable(), resource: resource() });
                }
                Account::TooMany => doubts.push(Doubt::TooManyHandles { resource: resource() }),
                Account::Missing => doubts.push(Doubt::HeldElsewhere { resource: resource() }),
                Account::Unknown if wait.kind == ResourceKind::Lock => {
                    doubts.push(Doubt::AddressOnStack { resource: resource() });
                }
                Account::Unknown => {
                    let free = self.living(wait.resource, Roles::ACCESS);
                    doubts.extend(free.map(|task| Doubt::CanAddPermits { task, resource: resource() }));
                }
            }
            let certain = holder.is_some_and(|holder| holder.certain) || matches!(wait.by, Waker::Task(_));
            if !certain && account == Account::Exact {
                doubts.push(Doubt::MovedVariable { variable: variable() });
            }
            if matches!(wait.kind, ResourceKind::Mutex | ResourceKind::Rwlock)
                && let Some(task) = self.graph.holders.running(wait.resource)
            {
                doubts.push(Doubt::RunningTask { task: self.edges.id(task), resource: resource() });
            }
        }
        let mut distinct: Vec<Doubt> = Vec::new();
        for doubt in doubts {
            if !distinct.contains(&doubt) {
                distinct.push(doubt);
            }
        }
        distinct
    }
}
