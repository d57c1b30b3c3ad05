// All threads in groups of equal stacks, worst first.
import { useEffect, useState } from "preact/hooks";
import { get } from "./api";
import { clock, count, duration, pause } from "./format";
import type { Look, Thread, ThreadGroup, ThreadsAnswer } from "./model";
import { replaceQuery, type Route } from "./route";
import { Failure, Notes, Stack } from "./text";

export function ThreadsView({ look, route }: { look: Look; route: Route }) {
  const [answer, setAnswer] = useState<ThreadsAnswer>();
  const [at, setAt] = useState(0);
  const [error, setError] = useState<unknown>();
  const [text, setText] = useState(route.query.get("q") ?? "");
  useEffect(() => setText(route.query.get("q") ?? ""), [route]);
  useEffect(() => {
    let isCurrent = true;
    get<ThreadsAnswer>("/stacktrace/rust?groups=true").then(
      (answer) => isCurrent && (setAnswer(answer), setAt(Date.now()), setError(undefined)),
      (error: unknown) => isCurrent && setError(error),
    );
    return () => { isCurrent = false; };
  }, [look.at]);
  if (error !== undefined) return <Failure error={error} />;
  if (!answer) return <p role="status">Looking at the threads …</p>;
  const wanted = text.toLowerCase();
  const groups = (answer.groups ?? []).filter((group) => !wanted || searchable(group).includes(wanted));
  const search = (event: Event) => {
    const { value } = event.currentTarget as HTMLInputElement;
    setText(value);
    replaceQuery("threads", { q: value });
  };
  return (
    <>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <input type="search" id="search" placeholder="Search threads  ( / )" aria-label="Search" value={text} onInput={search} />
      </form>
      <p class="place" role="status">
        {count(groups.reduce((sum, group) => sum + group.count, 0), "thread")}, at {clock(at)}; the program {pause(answer.capture)}
      </p>
      <ul class="rows">
        {groups.map((group, at) => <GroupRow group={group} isOpen={text !== "" || (at < 3 && group.role !== "delouse")} />)}
      </ul>
      <Notes notes={answer.capture.notes} />
    </>
  );
}

const searchable = (group: ThreadGroup) =>
  [group.doing, group.text, ...group.threads.map(({ tid, name }) => `${tid} ${name}`)].join("\n").toLowerCase();

function GroupRow({ group, isOpen }: { group: ThreadGroup; isOpen: boolean }) {
  const names = group.threads.slice(0, 3).map(({ name }) => name).join(", ");
  const isBad = ["lock", "async_lock", "once", "running"].includes(group.activity) && group.role === "tokio_worker";
  return (
    <li>
      <details open={isOpen}>
        <summary>
          <b class="number">{group.count}</b>
          <span class={`badge ${isBad ? "suspected" : ""}`}>{group.doing}</span>
          <span class="what">{names}{group.threads.length > 3 && " …"}</span>
        </summary>
        <div class="inside">
          <ul class="plain">{group.threads.map((thread) => <li><ThreadText thread={thread} /></li>)}</ul>
          {group.count > group.threads.length && <p class="place">and {group.count - group.threads.length} more</p>}
          <Stack text={group.text} />
        </div>
      </details>
    </li>
  );
}

function ThreadText({ thread }: { thread: Thread }) {
  const cpu = thread.cpu_us === null ? "" : `, ${thread.cpu_us === 0 ? "under 20 ms" : duration(thread.cpu_us / 1000)} of processor time`;
  return (
    <>
      <b>{thread.tid}</b> {thread.name}<span class="place">{thread.state && `, ${thread.state}`}{cpu}</span>
      {thread.runs_task !== null && <>, polls <a href={`#/task/${thread.runs_task}`}>task {thread.runs_task}</a></>}
    </>
  );
}
