//! Stuck tasks, sorted by what keeps them: circles, those who wait behind a circle, and the ends of chains.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use super::holders::Holders;
use super::liveness::Liveness;
use super::ownership::Node;
use super::resources::{Wait, Waits, Waker};

/// Something in the graph that stuck tasks make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Vertex {
    /// A task, or a shared object.
    Owner(Node),
    /// A resource that some of them wait for, by the number of its first wait.
    Resource(usize),
}

/// The graph of the stuck: a task leads to what it waits for, that to who owns a handle of it, a shared
/// object to who refers to it.
pub(super) struct Graph<'g> {
    pub(super) waits: &'g Waits,
    pub(super) holders: &'g Holders,
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
    pub(super) fn of(waits: &'g Waits, holders: &'g Holders, liveness: &Liveness) -> Self {
        let mut graph =
            Self { waits, holders, vertices: Vec::new(), numbers: FxHashMap::default(), leads: Vec::new() };
        let mut resources: FxHashMap<(u64, u16), usize> = FxHashMap::default();
        for task in liveness.stuck() {
            graph.number(Vertex::Owner(Node::Task(task)));
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
                    for wait in own.iter().chain(thread).filter(|wait| wait.by != Waker::Outside) {
                        let index = waits.index(wait);
                        let first =
                            *resources.entry((wait.resource, holders.roles_of(wait).bits())).or_insert(index);
                        leads.push(Arc { to: graph.number(Vertex::Resource(first)), unpolled: false });
                    }
                }
                Vertex::Owner(Node::Statics) => {}
                Vertex::Owner(Node::Object(object)) => {
                    for reference in holders.references_to(object) {
                        let to = graph.number(Vertex::Owner(reference.owner));
                        leads.push(Arc { to, unpolled: reference.unpolled.is_some() });
                    }
                }
                Vertex::Resource(first) => {
                    let Some(wait) = waits.list.get(first) else { break };
                    if let Waker::Task(Some(of)) = wait.by {
                        leads.push(Arc { to: graph.number(Vertex::Owner(Node::Task(of))), unpolled: false });
                    }
                    for holding in holders.of_wait(wait).filter(|holding| !holding.is_in_line()) {
                        let to = graph.number(Vertex::Owner(holding.owner));
                        leads.push(Arc { to, unpolled: holding.unpolled.is_some() });
                    }
                }
            }
            graph.leads.push(leads);
            next += 1;
        }
        graph
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

    /// The task that a vertex is.
    pub(super) fn task(&self, number: u32) -> Option<u32> {
        match self.vertex(number) {
            Some(Vertex::Owner(Node::Task(task))) => Some(task),
            _ => None,
        }
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
            let interesting = match component.as_slice() {
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
                    if let (Some(task), Some(island)) = (self.task(*from), islands.get_mut(island)) {
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
