//! Groups stuck tasks by what blocks them: circles, tasks that wait behind a circle, and the last tasks of chains.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use super::holders::Holders;
use super::liveness::Liveness;
use super::ownership::Node;
use super::resources::Waits;
use super::wait::{ResourceKey, Wait, Waker};
use crate::tasks::ResourceKind;
use crate::tasks::layout::handles::Roles;

/// A vertex of the graph of stuck tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Vertex {
    /// A task, or a shared object.
    Owner(Node),
    /// A resource that some of them wait for, by the number of its first wait.
    Resource(usize),
}

/// The graph of stuck tasks. Arcs lead from a task to the resources that it waits for, from a resource to the owners of
/// its handles, and from a shared object to the owners of its references. Of a living task, only the stuck branches of
/// a `join!` are in the graph.
pub(super) struct Graph<'g> {
    pub(super) waits: &'g Waits,
    pub(super) holders: &'g Holders,
    liveness: &'g Liveness,
    pub(super) vertices: Vec<Vertex>,
    numbers: FxHashMap<Vertex, u32>,
    /// For each vertex, the arcs that start at it.
    pub(super) leads: Vec<Vec<Arc>>,
}

/// The numbers of the first waits of resources.
type Resources = FxHashMap<(ResourceKey, u16), usize>;

/// An arc from one vertex to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arc {
    pub(super) to: u32,
    /// Through a future that its task does not poll.
    pub(super) unpolled: bool,
}

/// Tasks that wait for one another, or a single task that nothing wakes.
#[derive(Debug, Default)]
pub(super) struct Component {
    /// Its vertices, each of which leads to every other.
    pub(super) vertices: Vec<u32>,
    /// Stuck tasks outside of it that wait for it, directly or through others.
    pub(super) behind: Vec<u32>,
}

impl<'g> Graph<'g> {
    /// The graph of all stuck tasks.
    pub(super) fn of(waits: &'g Waits, holders: &'g Holders, liveness: &'g Liveness) -> Self {
        let (vertices, leads) = (Vec::new(), Vec::new());
        let mut graph = Self { waits, holders, liveness, vertices, numbers: FxHashMap::default(), leads };
        let mut resources = FxHashMap::default();
        for task in liveness.stuck() {
            graph.owner(Node::Task(task));
        }
        for part in liveness.stuck_parts().filter(|part| holders.ownership.parts.awaited(*part).is_empty()) {
            graph.owner(Node::Part(part));
        }
        // The leads of one vertex add others at the end.
        while let Some(vertex) = graph.vertices.get(graph.leads.len()).copied() {
            let leads = graph.leads_of(graph.leads.len() as u32, vertex, &mut resources);
            graph.leads.push(leads);
        }
        graph
    }

    /// Where the vertex `number` leads.
    fn leads_of(&mut self, number: u32, vertex: Vertex, resources: &mut Resources) -> Vec<Arc> {
        let Self { waits, holders, liveness, .. } = *self;
        let parts = &holders.ownership.parts;
        let mut leads = Vec::new();
        match vertex {
            // If nothing can wake a task, it does not matter what it waits for.
            Vertex::Owner(Node::Task(task)) if liveness.is_unwakeable(task) => {}
            Vertex::Owner(Node::Task(task)) => {
                let thread = waits.for_thread(task).filter(|_| liveness.is_held_back(task));
                let own = if thread.is_none() { waits.of_task(task) } else { &[] };
                // The others lead to what blocks it.
                let own = own.iter().filter(|wait| !waits.is_interruption(wait)).chain(thread);
                leads.extend(own.filter_map(|wait| self.resource(wait, resources)));
            }
            Vertex::Owner(node @ Node::Part(part)) => {
                let own: Vec<&Wait> = self.waits_of(number).collect();
                leads.extend(own.into_iter().filter_map(|wait| self.resource(wait, resources)));
                let inside = parts.awaited(part).iter().chain(parts.branches(node));
                for other in inside.copied().filter(|part| !liveness.is_alive(Node::Part(*part))) {
                    leads.push(Arc { to: self.owner(Node::Part(other)), unpolled: false });
                }
            }
            Vertex::Owner(Node::Statics) => {}
            Vertex::Owner(Node::Object(object)) => {
                for reference in holders.owners_of(object) {
                    let to = self.owner(reference.owner);
                    leads.push(Arc { to, unpolled: reference.unpolled.is_some() });
                }
            }
            Vertex::Resource(first) => {
                let Some(wait) = waits.list.get(first) else { return leads };
                if let Waker::Task(Some(of)) = wait.by {
                    let end = parts.end(Node::Task(of));
                    leads.push(Arc { to: self.owner(end), unpolled: false });
                }
                if wait.is_by_wakers() {
                    for owner in holders.reaching(wait).1 {
                        leads.push(Arc { to: self.owner(owner), unpolled: false });
                    }
                    return leads;
                }
                for holding in holders.of_wait(wait).filter(|holding| !holding.is_in_line()) {
                    let to = self.owner(holding.owner);
                    leads.push(Arc { to, unpolled: holding.unpolled.is_some() });
                }
            }
        }
        leads
    }

    fn resource(&mut self, wait: &Wait, firsts: &mut Resources) -> Option<Arc> {
        let key = (wait.key(), self.holders.roles_of(wait).bits());
        let first = *firsts.entry(key).or_insert(self.waits.index(wait));
        let is_inside = wait.by != Waker::Outside;
        is_inside.then(|| Arc { to: self.number(Vertex::Resource(first)), unpolled: false })
    }

    /// The vertex of an owner. A task that is stuck as a whole takes the place of its parts.
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

    /// The waits of the task, or of the branch of a task, that a vertex is.
    pub(super) fn waits_of(&self, number: u32) -> impl Iterator<Item = &'g Wait> {
        let parts = &self.holders.ownership.parts;
        let part = self.vertex(number).filter(|_| self.is_part(number));
        let own = self.task(number).map(|task| self.waits.of_task(task)).unwrap_or_default().iter();
        own.filter(move |wait| {
            part.is_none_or(|part| part == Vertex::Owner(parts.at_leaf(wait.task, wait.leaf)))
        })
    }

    /// Whether a vertex is a stuck part of a living task.
    pub(super) fn is_part(&self, number: u32) -> bool {
        matches!(self.vertex(number), Some(Vertex::Owner(Node::Part(_))))
    }

    /// Whether a wait ends by a release, or by the answer to a request that is in a queue, rather than by a message or a
    /// signal that may be meant not to come.
    pub(super) fn blocks(&self, wait: &Wait) -> bool {
        let is_release =
            wait.kind.is_release() && !matches!(self.holders.roles_of(wait), Roles::ACCESS | Roles::WAKER);
        is_release
            || wait.blocks_thread
            || wait.kind == ResourceKind::Oneshot
                && self.holders.of_wait(wait).any(|of| self.holders.is_queued(of))
    }

    /// The first wait for the resource that a vertex is.
    pub(super) fn wait(&self, number: u32) -> Option<&'g Wait> {
        match self.vertex(number) {
            Some(Vertex::Resource(first)) => self.waits.list.get(first),
            _ => None,
        }
    }

    pub(super) fn leads(&self, number: u32) -> &[Arc] {
        self.leads.get(number as usize).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether some wait of a component ends by a release.
    pub(super) fn is_blocked(&self, component: &Component) -> bool {
        component.vertices.iter().filter_map(|vertex| self.wait(*vertex)).any(|wait| self.blocks(wait))
    }

    /// Whether a stuck task outside of a component waits for a lock.
    pub(super) fn keeps_locks(&self, component: &Component) -> bool {
        let waits = component.behind.iter().flat_map(|task| self.waits.of_task(*task));
        waits.into_iter().any(|wait| matches!(wait.kind, ResourceKind::Mutex | ResourceKind::Rwlock))
    }

    /// The components. Every stuck task is in one, or behind one.
    pub(super) fn components(&self) -> Vec<Component> {
        let found = self.strongly_connected();
        let mut components: Vec<Component> = Vec::new();
        let mut component_of: Vec<Option<usize>> = vec![None; self.vertices.len()];
        for component in found {
            // A single vertex is of interest only if it is the last task of a chain.
            let end = |vertex: &u32| self.leads(*vertex).is_empty() && self.task(*vertex).is_some();
            // In a living task, a branch that will receive no more messages may be intended.
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
                if let Some(of) = component_of.get_mut(*vertex as usize) {
                    *of = Some(components.len());
                }
            }
            components.push(Component { vertices: component, behind: Vec::new() });
        }
        self.assign(&mut components, &mut component_of);
        components
    }

    /// Assigns each vertex that leads to a component to the first component that it reaches.
    fn assign(&self, components: &mut [Component], component_of: &mut [Option<usize>]) {
        let mut led_by: Vec<Vec<u32>> = vec![Vec::new(); self.vertices.len()];
        for (from, arcs) in (0..).zip(&self.leads) {
            for arc in arcs {
                if let Some(of) = led_by.get_mut(arc.to as usize) {
                    of.push(from);
                }
            }
        }
        let mut queue: VecDeque<u32> =
            components.iter().flat_map(|component| component.vertices.iter().copied()).collect();
        while let Some(vertex) = queue.pop_front() {
            let Some(Some(component)) = component_of.get(vertex as usize).copied() else { continue };
            for from in led_by.get(vertex as usize).map(Vec::as_slice).unwrap_or_default() {
                if let Some(of @ None) = component_of.get_mut(*from as usize) {
                    *of = Some(component);
                    queue.push_back(*from);
                    let task = self.task(*from).filter(|_| !self.is_part(*from));
                    if let (Some(task), Some(component)) = (task, components.get_mut(component)) {
                        component.behind.push(task);
                    }
                }
            }
        }
    }

    /// Strongly connected components (Tarjan), with a stack of our own: chains of tasks may be long.
    fn strongly_connected(&self) -> Vec<Vec<u32>> {
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

    /// The shared objects that connect the vertices of components: anything else that refers to one of them could wake
    /// the tasks.
    pub(super) fn objects<'c>(&self, components: impl IntoIterator<Item = &'c Component>) -> BTreeSet<u32> {
        let vertices = components.into_iter().flat_map(|component| &component.vertices);
        let mut objects = BTreeSet::new();
        for vertex in vertices {
            match self.vertex(*vertex) {
                Some(Vertex::Owner(Node::Object(object))) => drop(objects.insert(object)),
                Some(Vertex::Resource(_)) => {
                    let wait = self.wait(*vertex);
                    objects.extend(wait.and_then(|wait| self.holders.channel_of(wait)));
                    objects.extend(wait.into_iter().flat_map(|wait| self.holders.doubtful_lock(wait)));
                    let by_wakers = wait.filter(|wait| wait.is_by_wakers());
                    objects.extend(by_wakers.into_iter().flat_map(|wait| self.holders.reaching(wait).0));
                }
                _ => {}
            }
        }
        objects
    }

    /// A short circle through the vertices of a component: one through the program's own code, of the tasks for which
    /// `is_own` is true, and not only through connections and what libraries do with them. It begins with a task; the first
    /// vertex is not repeated at the end.
    pub(super) fn circle(&self, component: &Component, is_own: impl Fn(u32) -> bool) -> Vec<u32> {
        let inside: FxHashSet<u32> = component.vertices.iter().copied().collect();
        let starts = component.vertices.iter().copied().filter(|vertex| self.task(*vertex).is_some());
        // A large component has many circles: some of its tasks are enough to find a short one.
        let is_beside = |vertex: &&u32| {
            let kind = self.wait(**vertex).map(|wait| wait.kind);
            matches!(kind, Some(ResourceKind::Connection | ResourceKind::Closed))
        };
        let straight: FxHashSet<u32> = inside.iter().filter(|vertex| !is_beside(vertex)).copied().collect();
        let circles = starts.take(32).flat_map(|start| {
            [&straight, &inside].into_iter().filter_map(move |within| self.circle_from(start, within))
        });
        let has_own = |circle: &[u32]| circle.iter().filter_map(|vertex| self.task(*vertex)).any(&is_own);
        // That a sender also waits for its receiver to be dropped is seldom the cause, nor that what drives an HTTP/2
        // connection and what uses it wait for each other.
        let is_aside = |circle: &[u32]| {
            let waits = || circle.iter().filter_map(|vertex| self.wait(*vertex)).map(|wait| wait.kind);
            waits().any(|kind| matches!(kind, ResourceKind::Connection | ResourceKind::Closed))
                || waits()
                    .all(|kind| matches!(kind, ResourceKind::Http2Stream | ResourceKind::Http2Connection))
        };
        circles.min_by_key(|circle| (!has_own(circle), is_aside(circle), circle.len())).unwrap_or_default()
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
