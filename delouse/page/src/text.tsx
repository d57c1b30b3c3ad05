// Sentences and stacks of the server, with links. Names come from the program's memory: they are only ever text nodes.
import type { ComponentChildren } from "preact";

const PARTS = /`([^`]*)`|\b([Tt]ask|[Tt]hread) (\d+)\b|\b([Tt]he main future)\b/g;

/** A sentence: code between backticks, and links for tasks and threads. */
export function Sentence({ text }: { text: string }) {
  const parts: ComponentChildren[] = [];
  let end = 0;
  for (const match of text.matchAll(PARTS)) {
    parts.push(text.slice(end, match.index));
    const [all, code, noun, id, main] = match;
    if (code !== undefined) parts.push(<code>{code}</code>);
    else if (noun?.toLowerCase() === "thread") parts.push(<a href={`#/threads?q=${id}`}>{all}</a>);
    else parts.push(<a href={`#/task/${main ? 0 : id}`}>{all}</a>);
    end = match.index + all.length;
  }
  parts.push(text.slice(end));
  return <>{parts}</>;
}

/** `function at file:line`, the place less prominent. */
export function Place({ text }: { text: string }) {
  const [, name, place] = /^(.*) (at \S+:\d+)$/.exec(text) ?? [];
  if (place === undefined) return <span class="function">{text}</span>;
  return <span><span class="function">{name}</span> <span class="place">{place}</span></span>;
}

/** A stack as the server's text has it: one line per function, and `→` before what is waited for. */
export function Stack({ text }: { text: string }) {
  const lines = text.replace(/\n$/, "").split("\n");
  const indents = lines.filter((line) => line.trim() !== "").map((line) => line.search(/\S/));
  const least = indents.length > 0 ? Math.min(...indents) : 0;
  return (
    <div class="stack" tabIndex={0} role="group" aria-label="stack">
      {lines.map((line) => {
        const level = Math.max(0, line.search(/\S/) - least);
        return (
          <div class="line" style={{ paddingLeft: `${level * 0.6}em` }}>
            <Line text={line.trim()} />
          </div>
        );
      })}
    </div>
  );
}

function Line({ text }: { text: string }) {
  if (text.startsWith("→ ")) {
    // In stacks of threads, the arrow marks the program's own line.
    if (/ at \S+:\d+$/.test(text)) return <b class="own"><Place text={text.slice(2)} /></b>;
    return <span class="wait">→ <Sentence text={text.slice(2)} /></span>;
  }
  if (/^…|:$/.test(text) || text.startsWith("spawned at")) return <span class="place">{text}</span>;
  return <Place text={text} />;
}

export function Tasks({ ids, count }: { ids: number[]; count: number }) {
  const shown = ids.slice(0, 12);
  return (
    <span class="chips">
      {shown.map((id) => <a class="chip" href={`#/task/${id}`}>{id === 0 ? "main" : id}</a>)}
      {count > shown.length && <span class="place"> and {(count - shown.length).toLocaleString("en-US")} more</span>}
    </span>
  );
}

export function Notes({ notes }: { notes: string[] }) {
  return <>{notes.map((note) => <p class="note">Note: <Sentence text={note} /></p>)}</>;
}

export function Failure({ error }: { error: unknown }) {
  return <p class="failure" role="alert">{error instanceof Error ? error.message : String(error)}</p>;
}
