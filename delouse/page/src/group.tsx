// The members of one group, by page, as they are now.
import { useEffect, useState } from "preact/hooks";
import { get } from "./api";
import { clock, count, since, taskName, thousands, words } from "./format";
import type { Look, TasksAnswer } from "./model";
import { Failure, Place, Stack } from "./text";

const PAGE = 50;

export function GroupView({ look, id }: { look: Look; id: string }) {
  const [offset, setOffset] = useState(0);
  const [answer, setAnswer] = useState<TasksAnswer>();
  const [at, setAt] = useState(0);
  const [error, setError] = useState<unknown>();
  const group = look.tasks.groups?.find(({ key }) => key === id);
  useEffect(() => {
    let isCurrent = true;
    const path = `/stacktrace/tokio?group=${encodeURIComponent(id)}&offset=${offset}&limit=${PAGE}`;
    get<TasksAnswer>(path).then(
      (answer) => isCurrent && (setAnswer(answer), setAt(Date.now()), setError(undefined)),
      (error: unknown) => isCurrent && setError(error),
    );
    return () => { isCurrent = false; };
  }, [id, offset, look.at]);
  const tasks = answer?.tasks ?? [];
  return (
    <>
      <p><a href="#/tasks">All groups</a></p>
      {group && <h2>{count(group.count, "task")} {group.place && <>in <Place text={group.place} /></>}</h2>}
      {group && <Stack text={group.text} />}
      {error !== undefined && <Failure error={error} />}
      {answer?.matching === 0 && <p>No task is in this group any more.</p>}
      {answer && answer.matching > 0 && (
        <>
          <p class="place" role="status">
            {thousands(offset + 1)} to {thousands(offset + tasks.length)} of {thousands(answer.matching)}, at {clock(at)}
          </p>
          <table>
            <thead><tr><th>task</th><th>state</th><th>waits for</th><th>since</th><th>spawned at</th></tr></thead>
            <tbody>
              {tasks.map((task) => (
                <tr>
                  <td><a href={`#/task/${task.id}`}>{taskName(task.id)}</a></td>
                  <td>{task.state ?? "unknown"}</td>
                  <td>{task.waits_on.map(({ kind, address }) => `${words(kind)} ${address ?? ""}`).join(", ")}</td>
                  <td>{since(task.waiting)}</td>
                  <td>{task.spawned_at ?? ""}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <p>
            <button type="button" disabled={offset === 0} onClick={() => setOffset(Math.max(0, offset - PAGE))}>Previous</button>{" "}
            <button type="button" disabled={offset + PAGE >= answer.matching} onClick={() => setOffset(offset + PAGE)}>Next</button>
          </p>
        </>
      )}
    </>
  );
}
