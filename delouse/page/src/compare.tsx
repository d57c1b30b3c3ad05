// What changed between an earlier look and the current one.
import { useState } from "preact/hooks";
import { clock, count, moment, thousands, words } from "./format";
import type { Finding, Look, TaskGroup } from "./model";
import { Failure, Place, Sentence } from "./text";

interface Change { what: string; detail: string; before: number; after: number }

/** Groups by where their tasks are, whatever their state: a task that was woken is at the same place. */
function places(groups: TaskGroup[]): Map<string, Change> {
  const sizes = new Map<string, Change>();
  for (const group of groups) {
    const what = group.place ?? "(no stack)";
    const detail = group.state === "complete" ? "finished" : group.waits_on.map(words).join(", ");
    const key = `${what}\n${detail}`;
    const known = sizes.get(key) ?? { what, detail, before: 0, after: 0 };
    sizes.set(key, { ...known, after: known.after + group.count });
  }
  return sizes;
}

function changes(before: Look, after: Look): Change[] {
  const then = places(before.tasks.groups ?? []);
  const now = places(after.tasks.groups ?? []);
  const all = new Map<string, Change>(now);
  for (const [key, { what, detail, after: size }] of then) {
    all.set(key, { what, detail, before: size, after: now.get(key)?.after ?? 0 });
  }
  return [...all.values()].sort((a, b) => Math.abs(b.after - b.before) - Math.abs(a.after - a.before) || b.after - a.after);
}

const isSame = (one: Finding, other: Finding) =>
  one.kind === other.kind && (one.tasks.some((id) => other.tasks.includes(id)) || one.tasks.length + other.tasks.length === 0);

const without = (some: Finding[], others: Finding[]) => some.filter((one) => !others.some((other) => isSame(one, other)));

interface CompareProps { all: Look[]; opened: Look[]; open: (look: Look) => void }

export function CompareView({ all, opened, open }: CompareProps) {
  const [chosen, setChosen] = useState<number>();
  const [error, setError] = useState<unknown>();
  const [current, ...taken] = all;
  const earlier = [...taken, ...opened];
  const before = earlier.find(({ at }) => at === chosen) ?? earlier[0];
  const choose = async (event: Event) => {
    const file = (event.currentTarget as HTMLInputElement).files?.[0];
    if (!file) return;
    try {
      const look = JSON.parse(await file.text()) as Look;
      if (typeof look.at !== "number" || !Array.isArray(look.tasks?.groups)) throw new Error("This file is no saved look.");
      open(look);
      setChosen(look.at);
      setError(undefined);
    } catch (error) {
      setError(error);
    }
  };
  return (
    <>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        {earlier.length > 0 && <label>
          Compare with{" "}
          <select value={String(before?.at ?? "")} onChange={(event) => setChosen(Number((event.currentTarget as HTMLSelectElement).value))}>
            {earlier.map(({ at, tasks }) => <option value={String(at)}>{moment(at)}, {count(tasks.total, "task")}</option>)}
          </select>
        </label>}
        <label>Compare with a saved look <input type="file" accept="application/json" onChange={choose} /></label>
      </form>
      {error !== undefined && <Failure error={error} />}
      {current && before ? <Comparison before={before} after={current} /> : <p>There is no earlier look: look again (r) first.</p>}
    </>
  );
}

function Comparison({ before, after }: { before: Look; after: Look }) {
  const all = changes(before, after);
  const changed = all.filter(({ before, after }) => before !== after);
  const then = before.diagnosis?.findings ?? [];
  const now = after.diagnosis?.findings ?? [];
  return (
    <>
      <p role="status">
        {count(before.tasks.total, "task")} at {moment(before.at)}, {thousands(after.tasks.total)} at {clock(after.at)};{" "}
        {count(changed.length, "place")} of {all.length} changed
      </p>
      <Findings title="New findings" findings={without(now, then)} />
      <Findings title="Findings that are gone" findings={without(then, now)} />
      <Findings title="Findings in both" findings={now.filter((one) => then.some((other) => isSame(one, other)))} />
      <table>
        <thead><tr><th class="number">before</th><th class="number">after</th><th class="number">change</th><th>where</th><th>waits for</th></tr></thead>
        <tbody>
          {all.slice(0, 200).map(({ what, detail, before, after }) => (
            <tr class={after > before ? "grew" : after < before ? "shrank" : ""}>
              <td class="number">{thousands(before)}</td>
              <td class="number">{thousands(after)}</td>
              <td class="number">{after === before ? "" : `${after > before ? "+" : "−"}${thousands(Math.abs(after - before))}`}</td>
              <td><Place text={what} /></td>
              <td>{detail}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function Findings({ title, findings }: { title: string; findings: Finding[] }) {
  if (findings.length === 0) return null;
  return (
    <>
      <h3>{title}</h3>
      <ul>{findings.map(({ summary }) => <li><Sentence text={summary} /></li>)}</ul>
    </>
  );
}
