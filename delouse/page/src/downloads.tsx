// Answers as files, for other tools and for colleagues.
import { useState } from "preact/hooks";
import { download, getText, saveText } from "./api";
import type { Look } from "./model";
import { Failure } from "./text";

const FILES: [title: string, files: [label: string, path: string, name: string][]][] = [
  ["Diagnosis", [
    ["text", "/diagnosis?format=text", "diagnosis.txt"],
    ["JSON", "/diagnosis?format=json", "diagnosis.json"],
  ]],
  ["Tasks", [
    ["text", "/stacktrace/tokio?format=text", "tasks.txt"],
    ["every frame", "/stacktrace/tokio?format=text&full=true", "tasks-full.txt"],
    ["JSON", "/stacktrace/tokio?format=json", "tasks.json"],
    ["pprof", "/stacktrace/tokio?format=pprof", "tasks.pb.gz"],
    ["flame graph", "/stacktrace/tokio?format=folded", "tasks.folded"],
  ]],
  ["Threads", [
    ["text", "/stacktrace/rust?format=text", "threads.txt"],
    ["every frame", "/stacktrace/rust?format=text&full=true", "threads-full.txt"],
    ["JSON", "/stacktrace/rust?format=json", "threads.json"],
    ["pprof", "/stacktrace/rust?format=pprof", "threads.pb.gz"],
    ["flame graph", "/stacktrace/rust?format=folded", "threads.folded"],
  ]],
  ["What waits for what", [
    ["text", "/waits?format=text", "waits.txt"],
    ["Graphviz", "/waits?format=dot", "waits.dot"],
    ["JSON", "/waits?format=json", "waits.json"],
  ]],
];

export function DownloadsView({ look }: { look: Look }) {
  const [error, setError] = useState<unknown>();
  const [estimate, setEstimate] = useState("");
  const save = (path: string, name: string) => download(path, name).then(() => setError(undefined), setError);
  const saveLook = () => saveText(JSON.stringify(look), `look-${new Date(look.at).toISOString().slice(0, 19).replaceAll(":", "")}.json`);
  return (
    <>
      {error !== undefined && <Failure error={error} />}
      <dl class="downloads">
        <div>
          <dt>This look</dt>
          <dd><button type="button" onClick={saveLook}>JSON</button> to compare with later, or to send to a colleague</dd>
        </div>
        {FILES.map(([title, files]) => (
          <div>
            <dt>{title}</dt>
            <dd>{files.map(([label, path, name]) => <><button type="button" onClick={() => save(path, name)}>{label}</button>{" "}</>)}</dd>
          </div>
        ))}
        <div>
          <dt>Core file</dt>
          <dd>
            <button type="button" onClick={() => getText("/core?estimate=true&format=text").then(setEstimate, setError)}>How large?</button>{" "}
            <button type="button" onClick={() => save("/core", "core")}>core file</button>{" "}
            of the program, which continues to run. It has all of the program's memory, with every secret in it.
            {estimate && <pre>{estimate}</pre>}
          </dd>
        </div>
      </dl>
    </>
  );
}
