// All tasks in groups of equal stacks, with search and filters.
import { useMemo, useState } from "preact/hooks";
import { count, since, thousands, words } from "./format";
import type { Looks } from "./looks";
import type { Look, TaskGroup } from "./model";
import { replaceQuery, type Route } from "./route";
import { Notes, Place, Stack, Tasks } from "./text";

/** Rows that are shown at first, and then with each request for more. */
const ROWS = 100;

const texts = new WeakMap<TaskGroup, string>();

/** All that the search looks at. */
function searchable(group: TaskGroup): string {
  let text = texts.get(group);
  if (text === undefined) {
    const parts = [group.text, group.place, group.spawned_at, group.waits_on.join(" "), group.runtime];
    text = parts.join("\n").toLowerCase();
    texts.set(group, text);
  }
  return text;
}

const kindNames: Record<string, string> = { task: "", main: "main future", local: "local", blocking: "blocking" };

export function TasksView({ look, looks, route }: { look: Look; looks: Looks; route: Route }) {
  const [text, setText] = useState(route.query.get("q") ?? "");
  const [state, setState] = useState(route.query.get("state") ?? "");
  const [kind, setKind] = useState(route.query.get("kind") ?? "");
  const [rows, setRows] = useState(ROWS);
  const groups = look.tasks.groups ?? [];
  const more = look.tasks.more_groups ?? 0;
  const found = useMemo(() => {
    const wanted = text.toLowerCase();
    return groups.filter((group) =>
      (!state || group.state === state) && (!kind || group.kind === kind) && (!wanted || searchable(group).includes(wanted)),
    );
  }, [groups, text, state, kind]);
  const change = (set: (value: string) => void, name: string) => (event: Event) => {
    const { value } = event.currentTarget as HTMLInputElement | HTMLSelectElement;
    set(value);
    setRows(ROWS);
    replaceQuery("tasks", { q: text, state, kind, [name]: value });
  };
  const tasks = found.reduce((sum, group) => sum + group.count, 0);
  return (
    <>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <input type="search" id="search" placeholder="Search stacks, files, waits  ( / )" aria-label="Search"
          value={text} onInput={change(setText, "q")} />
        <Choice label="State" value={state} values={["running", "scheduled", "idle", "complete"]} onChange={change(setState, "state")} />
        <Choice label="Kind" value={kind} values={["task", "main", "local", "blocking"]} onChange={change(setKind, "kind")} />
      </form>
      <p class="place" role="status">
        {thousands(tasks)} of {count(look.tasks.total, "task")} in {count(found.length, "group")} of equal stacks
      </p>
      {more > 0 && (
        <p>
          {count(more, "smaller group")} of equal stacks {more === 1 ? "is" : "are"} not searched{" "}
          <button type="button" disabled={looks.busy !== ""} onClick={looks.more}>Load more</button>
        </p>
      )}
      <ul class="rows">{found.slice(0, rows).map((group) => <GroupRow key={group.key} group={group} />)}</ul>
      {found.length > rows && (
        <button type="button" onClick={() => setRows(rows + ROWS)}>Show {Math.min(ROWS, found.length - rows)} more groups</button>
      )}
      <Notes notes={look.tasks.capture.notes} />
    </>
  );
}

interface ChoiceProps { label: string; value: string; values: string[]; onChange: (event: Event) => void }

function Choice({ label, value, values, onChange }: ChoiceProps) {
  return (
    <label>
      {label}{" "}
      <select value={value} onChange={onChange}>
        <option value="">any</option>
        {values.map((name) => <option value={name}>{name}</option>)}
      </select>
    </label>
  );
}

function GroupRow({ group }: { group: TaskGroup }) {
  const [isOpen, setIsOpen] = useState(false);
  const [only] = group.tasks;
  return (
    <li>
      <details onToggle={(event) => setIsOpen((event.currentTarget as HTMLDetailsElement).open)}>
        <summary>
          <b class="number">{thousands(group.count)}</b>
          {group.state && <span class={`badge ${group.state}`}>{group.state}</span>}
          <span class="what">{group.place ? <Place text={group.place} /> : <span class="place">(no stack)</span>}</span>
          <span class="place">
            {[kindNames[group.kind] ?? group.kind, group.waits_on.map(words).join(", "), since(group.waiting)]
              .filter((part) => part !== "").join(" · ")}
          </span>
        </summary>
        {isOpen && (
          <div class="inside">
            <p class="place">
              {group.runtime && <>runtime {group.runtime}; </>}
              {group.spawned_at && <>spawned at {group.spawned_at}; </>}
              tasks <Tasks ids={group.tasks} count={group.count} />{" "}
              {group.count > 1
                ? <a href={`#/group/${group.key}`}>all {thousands(group.count)}</a>
                : only !== undefined && <a href={`#/task/${only}`}>what it waits for</a>}
            </p>
            <Stack text={group.text} />
          </div>
        )}
      </details>
    </li>
  );
}
