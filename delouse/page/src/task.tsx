// One task: its stack, what it waits for and what holds that, what waits for it, and the graph around it.
import { useEffect, useMemo, useState } from "preact/hooks";
import { get } from "./api";
import { clock, count, since, taskName, upper, words } from "./format";
import { ofWaits } from "./graph";
import type { Edge, Holder, Look, Task, TasksAnswer, WaitsAnswer } from "./model";
import { Picture } from "./picture";
import { Failure, Notes, Sentence, Stack } from "./text";

/** Waits around the task that are asked for: more would be no picture. */
const AROUND = 100;
/** Tasks that wait for this one which are listed. */
const BEHIND = 20;

interface Answers { tasks: TasksAnswer; waits?: WaitsAnswer; at: number }

export function TaskView({ look, id }: { look: Look; id: number }) {
  const [answers, setAnswers] = useState<Answers>();
  const [error, setError] = useState<unknown>();
  useEffect(() => {
    let isCurrent = true;
    const ask = async () => {
      const tasks = await get<TasksAnswer>(`/stacktrace/tokio?task=${id}`);
      if (!isCurrent) return;
      setAnswers((before) => ({ tasks, at: Date.now(), waits: before?.tasks.tasks[0]?.id === id ? before.waits : undefined }));
      const waits = await get<WaitsAnswer>(`/waits?task=${id}&limit=${AROUND}`);
      if (isCurrent) setAnswers({ tasks, waits, at: Date.now() });
    };
    setError(undefined);
    ask().catch((error: unknown) => isCurrent && setError(error));
    return () => { isCurrent = false; };
  }, [id, look.at]);
  const findings = look.diagnosis?.findings.filter(({ tasks }) => tasks.includes(id)) ?? [];
  return (
    <>
      <p><a href="#/tasks">All tasks</a></p>
      <h2>{upper(taskName(id))}</h2>
      {findings.map((finding) => (
        <p class={`verdict ${finding.severity === "certain" ? "bad" : "suspected"}`}>
          <Sentence text={finding.summary} /> <a href="#/diagnosis">Evidence</a>
        </p>
      ))}
      {error !== undefined && <Failure error={error} />}
      {answers && <TaskContent id={id} answers={answers} />}
      {!answers && error === undefined && <p role="status">Looking at {taskName(id)} …</p>}
    </>
  );
}

function TaskContent({ id, answers: { tasks, waits, at } }: { id: number; answers: Answers }) {
  if (tasks.tasks.length === 0) return <p>There is no {taskName(id)} any more.</p>;
  // The first line of each part says what the page says above.
  const stacks = tasks.stacktrace.split("\n\n").slice(1).map((part) => part.replace(/^.*\n/, ""));
  return (
    <>
      <p class="place">As of {clock(at)}</p>
      {tasks.tasks.map((task) => <TaskFacts task={task} />)}
      <h3>Stack</h3>
      {stacks.map((stack) => <Stack text={stack} />)}
      {waits ? <Waits id={id} waits={waits} /> : <p role="status">Looking for what holds what it waits for …</p>}
    </>
  );
}

function TaskFacts({ task }: { task: Task }) {
  const facts: [string, string][] = [
    ["state", task.state ?? "unknown"],
    ["waiting", since(task.waiting)],
    ["kind", task.kind],
    ["runtime", task.runtime ?? ""],
    ["spawned at", task.spawned_at ?? ""],
    ["on thread", task.thread ? String(task.thread) : ""],
  ];
  const known = facts.filter(([, value]) => value !== "");
  return <dl class="facts">{known.map(([name, value]) => <div><dt>{name}</dt><dd>{value}</dd></div>)}</dl>;
}

function Waits({ id, waits }: { id: number; waits: WaitsAnswer }) {
  const graph = useMemo(() => ofWaits(waits, [id]), [waits, id]);
  const own = waits.edges.filter(({ waiter }) => waiter === id);
  const behind = waits.edges.filter(({ waiter, holders }) => waiter !== id && holders.some(({ task }) => task === id));
  return (
    <>
      {own.length > 0 && <h3>Waits for</h3>}
      <ul>{own.map((edge) => <WaitLine edge={edge} />)}</ul>
      {behind.length > 0 && <h3>Waiting for it: {count(behind.length, "task")}</h3>}
      <ul>{behind.slice(0, BEHIND).map((edge) => <BehindLine edge={edge} />)}</ul>
      {graph.arrows.length > 0 && (
        <>
          <h3>Around it</h3>
          <Picture graph={graph} title={`What is around ${taskName(id)}`} />
        </>
      )}
      <Notes notes={waits.capture.notes} />
    </>
  );
}

function resourceText({ resource }: Edge): string {
  const kind = words(resource.kind);
  return `${resource.id}${resource.id.startsWith(kind) ? "" : ` (${kind})`}${resource.address ? ` ${resource.address}` : ""}`;
}

function WaitLine({ edge }: { edge: Edge }) {
  return (
    <li>
      <code>{resourceText(edge)}</code>
      {edge.holders.length > 0 && (
        <ul>
          {edge.holders.map((holder) => <li><HolderText holder={holder} /></li>)}
          {(edge.more_holders ?? 0) > 0 && <li class="place">and {count(edge.more_holders ?? 0, "more holder")}</li>}
        </ul>
      )}
      {edge.holders.length === 0 && !edge.outside && <span class="place"> of which no holder was found</span>}
    </li>
  );
}

function HolderText({ holder }: { holder: Holder }) {
  const verb = holder.certain ? "has" : "may have";
  return (
    <>
      {holder.task !== null && <a href={`#/task/${holder.task}`}>{taskName(holder.task)}</a>}
      {holder.task === null && holder.thread !== undefined && <a href={`#/threads?q=${holder.thread}`}>thread {holder.thread}</a>}
      {holder.task === null && holder.thread === undefined && "something outside of all tasks"}
      {holder.variable && <> {verb} <code>{holder.variable}</code>{holder.handle && <>, a {holder.handle},</>}</>}
      {holder.place && <> in <code>{holder.place}</code></>}
    </>
  );
}

function BehindLine({ edge }: { edge: Edge }) {
  return (
    <li>
      {edge.waiter !== null ? <a href={`#/task/${edge.waiter}`}>{taskName(edge.waiter)}</a> : `thread ${edge.thread ?? "?"}`}
      {" "}waits for <code>{resourceText(edge)}</code>{edge.place && <> in <code>{edge.place}</code></>}
    </li>
  );
}
