//! Stuck tasks, sorted by what keeps them: circles, those who wait behind a circle, and the ends of chains.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use super::handles::Roles;
use super::holders::Holders;
use super::liveness::Liveness;
use super::ownership::Node;
use super::resources::{Wait, Waits, Waker, is_lock};
use crate::tasks::ResourceKind;

/// Something in the graph that stuck tasks make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Vertex {
    /// A task, or a shared object.
    Owner(Node),
    /// A resource that some of them wait for, by the number of its first wait.
    Resource(usize),
}

/// The graph of the stuck: a task leads to what it waits for, that to who owns a handle of it, a shared
/// object to who refers to it. Of a task that lives, the stuck branches of a `join!` are in it.
pub(super) struct Graph<'g> {
    pub(super) waits: &'g Waits,
    pub(super) holders: &'g Holders,
    liveness: &'g Liveness,
    pub(super) vertices: Vec<Vertex>,
    numbers: FxHashMap<Vertex, u32>,
    /// Of each vertex, those that it leads to.
    pub(super) leads: Vec<Vec<Arc>>,
}

/// From one vertex to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arc {
    pub(super) to: u32,
    /// Through a future that its task does not poll.
    pub(super) unpolled: bool,
}

/// Tasks that wait for one another; or one that nothing wakes.
#[derive(Debug, Default)]
pub(super) struct Island {
    /// Its vertices, each of which leads to every other.
    pub(super) vertices: Vec<u32>,
    /// Stuck tasks outside of it that wait for it, at first or at last.
    pub(super) behind: Vec<u32>,
}

impl<'g> Graph<'g> {
    /// The graph of all stuck tasks.
    pub(super) fn of(waits: &'g Waits, holders: &'g Holders, liveness: &'g Liveness) -> Self {
        let (vertices, leads) = (Vec::new(), Vec::new());
        let mut graph = Self { waits, holders, liveness, vertices, numbers: FxHashMap::default(), leads };
        let parts = &holders.ownership.parts;
        let mut resources: FxHashMap<(u64, u16), usize> = FxHashMap::default();
        for task in liveness.stuck() {
            graph.owner(Node::Task(task));
        }
        for part in liveness.stuck_parts().filter(|part| parts.awaited(*part).is_empty()) {
            graph.owner(Node::Part(part));
        }
        let mut next = 0;
        while let Some(vertex) = graph.vertices.get(next).copied() {
            let mut leads = Vec::new();
            match vertex {
                // What such a task waits for does not matter any more.
                Vertex::Owner(Node::Task(task)) if liveness.is_unwakeable(task) => {}
                Vertex::Owner(Node::Task(task)) => {
                    let thread = waits.for_thread(task).filter(|_| liveness.is_held_back(task));
                    let own = if thread.is_none() { waits.of_task(task) } else { &[] };
                    let own = own.iter().chain(thread);
                    leads.extend(own.filter_map(|wait| graph.resource(wait, &mut resources)));
                }
                Vertex::Owner(node @ Node::Part(part)) => {
                    let own: Vec<&Wait> = graph.waits_of(next as u32).collect();
                    leads.extend(own.into_iter().filter_map(|wait| graph.resource(wait, &mut resources)));
                    let inside = parts.awaited(part).iter().chain(parts.branches(node));
                    for other in inside.copied().filter(|part| !liveness.is_alive(Node::Part(*part))) {
                        leads.push(Arc { to: graph.owner(Node::Part(other)), unpolled: false });
                    }
                }
                Vertex::Owner(Node::Statics) => {}
                Vertex::Owner(Node::Object(object)) => {
                    for reference in holders.references_to(object) {
                        let to = graph.owner(reference.owner);
                        leads.push(Arc { to, unpolled: reference.unpolled.is_some() });
                    }
                }
                Vertex::Resource(first) => {
                    let Some(wait) = waits.list.get(first) else { break };
                    if let Waker::Task(Some(of)) = wait.by {
                        let end = parts.end(Node::Task(of));
                        leads.push(Arc { to: graph.owner(end), unpolled: false });
                    }
                    for holding in holders.of_wait(wait).filter(|holding| !holding.is_in_line()) {
                        let to = graph.owner(holding.owner);
                        leads.push(Arc { to, unpolled: holding.unpolled.is_some() });
                    }
                }
            }
            graph.leads.push(leads);
            next += 1;
        }
        graph
    }

    fn resource(&mut self, wait: &Wait, firsts: &mut FxHashMap<(u64, u16), usize>) -> Option<Arc> {
        let key = (wait.resource, self.holders.roles_of(wait).bits());
        let first = *firsts.entry(key).or_insert(self.waits.index(wait));
        let is_inside = wait.by != Waker::Outside;
        is_inside.then(|| Arc { to: self.number(Vertex::Resource(first)), unpolled: false })
    }

    /// Of a task that is stuck as a whole, parts tell nothing more.
    fn owner(&mut self, node: Node) -> u32 {
        let whole = self.holders.ownership.parts.whole(node);
        let node = if self.liveness.is_alive(whole) { node } else { whole };
        self.number(Vertex::Owner(node))
    }

    fn number(&mut self, vertex: Vertex) -> u32 {
        let next = self.vertices.len() as u32;
        let number = *self.numbers.entry(vertex).or_insert(next);
        if number == next {
            self.vertices.push(vertex);
        }
        number
    }

    pub(super) fn vertex(&self, number: u32) -> Option<Vertex> {
        self.vertices.get(number as usize).copied()
    }

    /// The task that a vertex is, or is a part of.
    pub(super) fn task(&self, number: u32) -> Option<u32> {
        match self.vertex(number) {
            Some(Vertex::Owner(node)) => self.holders.ownership.parts.task_of(node),
            _ => None,
        }
    }

    /// What the task waits for, or the branch of it, that a vertex is.
    pub(super) fn waits_of(&self, number: u32) -> impl Iterator<Item = &'g Wait> {
        let parts = &self.holders.ownership.parts;
        let part = self.vertex(number).filter(|_| self.is_part(number));
        let own = self.task(number).map(|task| self.waits.of_task(task)).unwrap_or_default().iter();
        own.filter(move |wait| {
            part.is_none_or(|part| part == Vertex::Owner(parts.at_leaf(wait.task, wait.leaf)))
        })
    }

    /// Whether a vertex is stuck in a task that is not.
    pub(super) fn is_part(&self, number: u32) -> bool {
        matches!(self.vertex(number), Some(Vertex::Owner(Node::Part(_))))
    }

    /// Whether a wait ends when somebody lets go, rather than when somebody has something to say.
    pub(super) fn blocks(&self, wait: &Wait) -> bool {
        let kind = wait.kind;
        (is_lock(kind)
            || matches!(kind, ResourceKind::Join | ResourceKind::ChannelSend | ResourceKind::Thread))
            && self.holders.roles_of(wait) != Roles::ACCESS
    }

    /// The wait that stands for the resource that a vertex is.
    pub(super) fn wait(&self, number: u32) -> Option<&'g Wait> {
        match self.vertex(number) {
            Some(Vertex::Resource(first)) => self.waits.list.get(first),
            _ => None,
        }
    }

    pub(super) fn leads(&self, number: u32) -> &[Arc] {
        self.leads.get(number as usize).map(Vec::as_slice).unwrap_or_default()
    }

    /// The islands. Every stuck task is in one, or behind one.
    pub(super) fn islands(&self) -> Vec<Island> {
        let components = self.components();
        let mut islands: Vec<Island> = Vec::new();
        let mut island_of: Vec<Option<usize>> = vec![None; self.vertices.len()];
        for component in components {
            // A single vertex is the task at the end of a chain, or none of interest.
            let end = |vertex: &u32| self.leads(*vertex).is_empty() && self.task(*vertex).is_some();
            // A branch that hears nothing more, of a task that goes on, may be meant.
            let is_meant = component.iter().any(|vertex| self.is_part(*vertex))
                && !component.iter().filter_map(|vertex| self.wait(*vertex)).any(|wait| self.blocks(wait));
            let interesting = !is_meant
                && match component.as_slice() {
                    [only] => end(only),
                    several => several.iter().any(|vertex| self.task(*vertex).is_some()),
                };
            if !interesting {
                continue;
            }
            for vertex in &component {
                if let Some(of) = island_of.get_mut(*vertex as usize) {
                    *of = Some(islands.len());
                }
            }
            islands.push(Island { vertices: component, behind: Vec::new() });
        }
        self.assign(&mut islands, &mut island_of);
        islands
    }

    /// Gives everything that leads to an island to the first one that it reaches.
    fn assign(&self, islands: &mut [Island], island_of: &mut [Option<usize>]) {
        let mut led_by: Vec<Vec<u32>> = vec![Vec::new(); self.vertices.len()];
        for (from, arcs) in (0..).zip(&self.leads) {
            for arc in arcs {
                if let Some(of) = led_by.get_mut(arc.to as usize) {
                    of.push(from);
                }
            }
        }
        let mut queue: VecDeque<u32> =
            islands.iter().flat_map(|island| island.vertices.iter().copied()).collect();
        while let Some(vertex) = queue.pop_front() {
            let Some(Some(island)) = island_of.get(vertex as usize).copied() else { continue };
            for from in led_by.get(vertex as usize).map(Vec::as_slice).unwrap_or_default() {
                if let Some(of @ None) = island_of.get_mut(*from as usize) {
                    *of = Some(island);
                    queue.push_back(*from);
                    let task = self.task(*from).filter(|_| !self.is_part(*from));
                    if let (Some(task), Some(island)) = (task, islands.get_mut(island)) {
                        island.behind.push(task);
                    }
                }
            }
        }
    }

    /// Strongly connected components (Tarjan), with a stack of our own: chains of tasks may be long.
    fn components(&self) -> Vec<Vec<u32>> {
        const UNSEEN: u32 = u32::MAX;
        let count = self.vertices.len();
        let (mut index, mut low) = (vec![UNSEEN; count], vec![0_u32; count]);
        let mut on_stack = vec![false; count];
        let (mut stack, mut components, mut next) = (Vec::new(), Vec::new(), 0_u32);
        for root in 0..count as u32 {
            let mut calls = vec![(root, 0_usize)];
            while let Some((vertex, at)) = calls.pop() {
                let v = vertex as usize;
                if at == 0 {
                    if index[v] != UNSEEN {
                        continue;
                    }
                    index[v] = next;
                    low[v] = next;
                    next += 1;
                    stack.push(vertex);
                    on_stack[v] = true;
                } else if let Some(arc) = self.leads(vertex).get(at - 1) {
                    low[v] = low[v].min(low[arc.to as usize]);
                }
                let mut at = at;
                let mut called = false;
                while let Some(arc) = self.leads(vertex).get(at) {
                    let to = arc.to as usize;
                    at += 1;
                    if index[to] == UNSEEN {
                        calls.extend([(vertex, at), (arc.to, 0)]);
                        called = true;
                        break;
                    }
                    if on_stack[to] {
                        low[v] = low[v].min(index[to]);
                    }
                }
                if called || low[v] != index[v] {
                    continue;
                }
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member as usize] = false;
                    component.push(member);
                    if member == vertex {
                        break;
                    }
                }
                component.sort_unstable();
                components.push(component);
            }
        }
        components
    }

    /// The shared objects that the islands hang together by: whoever else has one of these could wake them.
    pub(super) fn objects(&self, islands: &[Island]) -> BTreeSet<u32> {
        let vertices = islands.iter().flat_map(|island| &island.vertices);
        let mut objects = BTreeSet::new();
        for vertex in vertices {
            match self.vertex(*vertex) {
                Some(Vertex::Owner(Node::Object(object))) => drop(objects.insert(object)),
                Some(Vertex::Resource(_)) => {
                    let wait = self.wait(*vertex);
                    objects.extend(wait.and_then(|wait| self.holders.channel_of(wait)));
                    objects.extend(wait.into_iter().flat_map(|wait| self.holders.doubtful_lock(wait)));
                }
                _ => {}
            }
        }
        objects
    }

    /// A shortest circle through the vertices of an island, which begins with a task; the first vertex is
    /// not repeated at its end.
    pub(super) fn circle(&self, island: &Island) -> Vec<u32> {
        let inside: FxHashSet<u32> = island.vertices.iter().copied().collect();
        let starts = island.vertices.iter().copied().filter(|vertex| self.task(*vertex).is_some());
        // Any task of a large island tells the same story.
        let circles = starts.take(32).filter_map(|start| self.circle_from(start, &inside));
        circles.min_by_key(Vec::len).unwrap_or_default()
    }

    fn circle_from(&self, start: u32, inside: &FxHashSet<u32>) -> Option<Vec<u32>> {
        let mut from: FxHashMap<u32, u32> = FxHashMap::default();
        let mut queue = VecDeque::from([start]);
        while let Some(vertex) = queue.pop_front() {
            for arc in self.leads(vertex).iter().filter(|arc| inside.contains(&arc.to)) {
                if arc.to == start {
                    let mut circle = vec![vertex];
                    while let Some(before) = circle.last().and_then(|last| from.get(last)) {
                        circle.push(*before);
                    }
                    circle.reverse();
                    return Some(circle);
                }
                from.entry(arc.to).or_insert_with(|| {
                    queue.push_back(arc.to);
                    vertex
                });
            }
        }
        None
    }
}
