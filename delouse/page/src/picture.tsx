// Draws a graph as SVG.
import { Graph as Layout, layout } from "@dagrejs/dagre";
import { useMemo } from "preact/hooks";
import type { Arrow, Graph, Node } from "./graph";

/** Of the monospaced font of the picture, in pixels. */
const LETTER = 6.9;
const LINE = 15;
const SPACE = 10;

interface Point { x: number; y: number }
interface Box extends Point { width: number; height: number; node: Node }
interface Line { arrow: Arrow; points: Point[]; label?: Point }
interface Drawing { width: number; height: number; boxes: Box[]; lines: Line[] }

function draw(graph: Graph): Drawing {
  const isWide = innerWidth > 800;
  const plan = new Layout({ multigraph: true });
  plan.setGraph({ rankdir: isWide ? "LR" : "TB", nodesep: 24, ranksep: isWide ? 56 : 40, marginx: 6, marginy: 6 });
  for (const node of graph.nodes.values()) {
    const longest = Math.max(...node.lines.map((line) => [...line].length));
    plan.setNode(node.id, { width: longest * LETTER + 2 * SPACE, height: node.lines.length * LINE + SPACE });
  }
  graph.arrows.forEach(({ from, to, label }, at) => {
    const size = label ? { width: [...short(label)].length * LETTER, height: LINE } : {};
    plan.setEdge(from, to, { labelpos: "c", ...size }, String(at));
  });
  layout(plan);
  const boxes = [...graph.nodes.values()].map((node) => ({ ...(plan.node(node.id) as unknown as Box), node }));
  const lines = graph.arrows.map((arrow, at) => {
    const edge = plan.edge(arrow.from, arrow.to, String(at)) as { points: Point[]; x?: number; y?: number };
    const label = edge.x !== undefined && edge.y !== undefined ? { x: edge.x, y: edge.y } : undefined;
    return { arrow, points: edge.points, label };
  });
  const size = plan.graph() as { width?: number; height?: number };
  return { width: Math.ceil(size.width ?? 0), height: Math.ceil(size.height ?? 0), boxes, lines };
}

const short = (label: string) => (label.length > 22 ? `${label.slice(0, 21)}…` : label);

/** A smooth line through the points. */
function curve(points: Point[]): string {
  const [first, ...rest] = points;
  if (!first) return "";
  const middle = (a: Point, b: Point) => `${(a.x + b.x) / 2} ${(a.y + b.y) / 2}`;
  const parts = rest.map((point, at) => {
    const next = rest[at + 1];
    return next ? `Q${point.x} ${point.y} ${middle(point, next)}` : `L${point.x} ${point.y}`;
  });
  return `M${first.x} ${first.y}${parts.join("")}`;
}

export function Picture({ graph, title }: { graph: Graph; title: string }) {
  const { width, height, boxes, lines } = useMemo(() => draw(graph), [graph]);
  const hasCycle = boxes.some(({ node }) => node.isInCycle);
  return (
    <figure class="graph">
      <div class="scroll" tabIndex={0} role="group" aria-label={title}>
        <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={title}>
          <defs>
            {["", "cycle"].map((name) => (
              <marker id={`head-${name}`} viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"
                orient="auto" markerUnits="userSpaceOnUse" class={`head ${name}`}>
                <path d="M0 0 8 4 0 8Z" />
              </marker>
            ))}
          </defs>
          {lines.map((line) => <ArrowLine {...line} />)}
          {boxes.map((box) => <NodeBox {...box} />)}
        </svg>
      </div>
      <figcaption>
        An arrow leads from a task to what it waits for, and from there to what can release it, by the variable that has it.
        {hasCycle && <> <b class="cycle-key">Red</b>: the circle that nothing ends.</>}
        {lines.some(({ arrow }) => !arrow.isCertain) && " Dashed: it may have it."}
        {graph.leftOut > 0 && ` ${graph.leftOut} more are not drawn.`}
      </figcaption>
    </figure>
  );
}

function ArrowLine({ arrow, points, label }: Line) {
  const cycle = arrow.isInCycle ? "cycle" : "";
  return (
    <g class={`arrow ${cycle} ${arrow.isCertain ? "" : "possible"}`}>
      <path d={curve(points)} marker-end={`url(#head-${cycle})`} />
      {label && arrow.label && <text x={label.x} y={label.y + 4} text-anchor="middle">{short(arrow.label)}</text>}
    </g>
  );
}

function NodeBox({ x, y, width, height, node }: Box) {
  const name = `node ${node.kind} ${node.isInCycle ? "cycle" : ""} ${node.isCentre ? "centre" : ""}`;
  const top = y - height / 2 + SPACE / 2 + 11;
  const content = (
    <>
      <rect x={x - width / 2} y={y - height / 2} width={width} height={height} rx={node.kind === "resource" ? 14 : 4} />
      {node.lines.map((line, at) => (
        <text x={x} y={top + at * LINE} text-anchor="middle" class={at === 0 ? "name" : ""}>{line}</text>
      ))}
    </>
  );
  return node.href ? <a class={name} href={node.href}>{content}</a> : <g class={name}>{content}</g>;
}
