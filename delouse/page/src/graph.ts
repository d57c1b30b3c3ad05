// What waits for what, as nodes and arrows: from a task to what it waits for, and from there to what can release it.
import { taskName, words } from "./format";
import type { Edge, Finding, Location, WaitsAnswer } from "./model";

export interface Node {
  id: string;
  kind: "task" | "thread" | "resource";
  lines: string[];
  /** The view that has more about it. */
  href?: string;
  /** It is one of those that the graph was asked for. */
  isCentre?: boolean;
  isInCycle?: boolean;
}

export interface Arrow {
  from: string;
  to: string;
  label: string;
  isCertain: boolean;
  isInCycle?: boolean;
}

/** A picture with more nodes cannot be read. */
const MOST_NODES = 200;

export class Graph {
  readonly nodes = new Map<string, Node>();
  readonly arrows: Arrow[] = [];
  /** Nodes that were left out. */
  leftOut = 0;
  private readonly known = new Set<string>();

  /** Returns the node's id, or nothing where there is no room for another one. */
  node(node: Node): string | undefined {
    const known = this.nodes.get(node.id);
    if (known) {
      // A holder's place says less than that of its own wait.
      if (node.lines.length > known.lines.length) known.lines = node.lines;
      return known.id;
    }
    if (this.nodes.size >= MOST_NODES) {
      this.leftOut++;
      return undefined;
    }
    this.nodes.set(node.id, node);
    return node.id;
  }

  arrow(from: string | undefined, to: string | undefined, label: string, isCertain = true) {
    if (from === undefined || to === undefined) return;
    const key = `${from} ${to} ${label}`;
    if (this.known.has(key)) return;
    this.known.add(key);
    this.arrows.push({ from, to, label, isCertain });
  }

  /** Marks the circles: nodes that are reachable from themselves, all of whose tasks are of a finding. */
  markCycles(stuck: Set<number>) {
    const next = new Map<string, string[]>();
    for (const { from, to } of this.arrows) next.set(from, [...(next.get(from) ?? []), to]);
    const reach = new Map<string, Set<string>>();
    for (const id of this.nodes.keys()) reach.set(id, reachable(id, next));
    const isStuck = (id: string) => !id.startsWith("task ") || stuck.has(Number(id.slice(5)));
    for (const node of this.nodes.values()) {
      node.isInCycle = (reach.get(node.id)?.has(node.id) ?? false) && isStuck(node.id);
    }
    for (const arrow of this.arrows) {
      const both = [arrow.from, arrow.to].every((id) => this.nodes.get(id)?.isInCycle);
      arrow.isInCycle = both && (reach.get(arrow.to)?.has(arrow.from) ?? false);
    }
  }
}

function reachable(from: string, next: Map<string, string[]>): Set<string> {
  const seen = new Set<string>();
  const open = [...(next.get(from) ?? [])];
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    if (seen.has(id)) continue;
    seen.add(id);
    open.push(...(next.get(id) ?? []));
  }
  return seen;
}

/** `transfer at src/main.rs:31` in two short lines. */
function placeLines(place: string | Location | null | undefined): string[] {
  if (!place) return [];
  const text = typeof place === "string" ? place : place.function + (place.file ? ` at ${place.file}:${place.line ?? "?"}` : "");
  const at = text.lastIndexOf(" at ");
  const [name, where] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 4)];
  const file = where.split("/").slice(-2).join("/");
  return [shorten(name.replace(/<.*>/, "<…>"), 30), shorten(file, 30)].filter((line) => line !== "");
}

const shorten = (text: string, most: number) => (text.length > most ? `…${text.slice(1 - most)}` : text);

function taskNode(graph: Graph, id: number, place?: string | Location | null) {
  const lines = [taskName(id), ...placeLines(place)];
  return graph.node({ id: `task ${id}`, kind: "task", lines, href: `#/task/${id}` });
}

function threadNode(graph: Graph, tid: number, name = "", place?: string | Location | null) {
  const lines = [`thread ${tid}`, name, ...placeLines(place)].filter((line) => line !== "");
  return graph.node({ id: `thread ${tid}`, kind: "thread", lines, href: `#/threads?q=${tid}` });
}

function resourceNode(graph: Graph, resource: { id: string; kind: string }, leaf?: string) {
  const kind = words(resource.kind);
  const lines = [resource.id, ...(resource.id.startsWith(kind) ? [] : [kind]), ...placeLines(leaf)];
  return graph.node({ id: `resource ${resource.id}`, kind: "resource", lines });
}

/** Of the facts of a finding. */
export function ofFinding(finding: Finding): Graph {
  const graph = new Graph();
  for (const fact of finding.facts) {
    const poller = typeof fact.thread === "object" ? fact.thread : undefined;
    if (fact.kind === "in_poll" && poller && finding.tasks[0] !== undefined) {
      const task = taskNode(graph, finding.tasks[0]);
      graph.arrow(task, threadNode(graph, poller.tid, poller.name, poller.place), "is polled by");
    }
    if (!fact.resource) continue;
    const waiter = fact.task !== undefined ? taskNode(graph, fact.task, fact.place) : lastThread(graph);
    const resource = resourceNode(graph, fact.resource);
    graph.arrow(waiter, resource, "");
    for (const holder of fact.holders ?? []) {
      const party = holder.task !== null
        ? taskNode(graph, holder.task, holder.place)
        : holder.thread && threadNode(graph, holder.thread.tid, holder.thread.name, holder.thread.place);
      graph.arrow(resource, party || undefined, holder.variable || "", holder.certain);
    }
  }
  graph.markCycles(new Set(finding.tasks));
  return graph;
}

const lastThread = (graph: Graph) => [...graph.nodes.keys()].filter((id) => id.startsWith("thread ")).pop();

/** Of the waits around tasks. */
export function ofWaits(answer: WaitsAnswer, centre: number[]): Graph {
  const graph = new Graph();
  for (const id of centre) {
    const place = answer.edges.find((edge) => edge.waiter === id)?.place;
    taskNode(graph, id, place);
    const node = graph.nodes.get(`task ${id}`);
    if (node) node.isCentre = true;
  }
  for (const edge of answer.edges) addEdge(graph, edge);
  const circles = answer.findings.filter(({ kind }) => ["deadlock", "futurelock", "leaked_tasks"].includes(kind));
  graph.markCycles(new Set(circles.flatMap(({ tasks }) => tasks)));
  return graph;
}

function addEdge(graph: Graph, edge: Edge) {
  const waiter = edge.waiter !== null
    ? taskNode(graph, edge.waiter, edge.place)
    : edge.thread !== undefined ? threadNode(graph, edge.thread, "", edge.place) : undefined;
  for (const holder of edge.holders) {
    const party = holder.task !== null
      ? taskNode(graph, holder.task, holder.place)
      : holder.thread !== undefined ? threadNode(graph, holder.thread, "", holder.place) : undefined;
    // The task whose end is waited for is the resource itself.
    if (edge.resource.kind === "join" && holder.variable === "") graph.arrow(waiter, party, "joins", holder.certain);
    else graph.arrow(resourceOf(graph, waiter, edge), party, holder.variable, holder.certain);
  }
  if (edge.holders.length === 0) resourceOf(graph, waiter, edge);
}

function resourceOf(graph: Graph, waiter: string | undefined, edge: Edge) {
  const leaf = edge.resource.kind === "unknown" ? edge.leaf : undefined;
  const resource = resourceNode(graph, edge.resource, leaf);
  graph.arrow(waiter, resource, "");
  return resource;
}
