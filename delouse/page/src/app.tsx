// The page: what it looks at, when it looked, and the view that the address names.
import { useEffect, useErrorBoundary, useRef, useState } from "preact/hooks";
import { get } from "./api";
import { BinaryView } from "./binary";
import { CompareView } from "./compare";
import { DiagnosisView, grade } from "./diagnosis";
import { DownloadsView } from "./downloads";
import { clock, pause } from "./format";
import { GroupView } from "./group";
import { type Looks, useLooks } from "./looks";
import type { Look } from "./model";
import { type Route, useRoute } from "./route";
import { TaskView } from "./task";
import { TasksView } from "./tasks";
import { Failure } from "./text";
import { ThreadsView } from "./threads";

const VIEWS = ["diagnosis", "tasks", "threads", "compare", "binary", "downloads"];
const GROWTH_SECONDS = 10;

export function App() {
  const [every, setEvery] = useState(0);
  const looks = useLooks(every);
  const route = useRoute();
  const name = useProgramName(looks.all.length > 0);
  useKeys(looks);
  const look = looks.all[0];
  useEffect(() => {
    const findings = look?.diagnosis?.findings.length ?? 0;
    document.title = `${findings > 0 ? `(${findings}) ` : ""}${name || "delouse"}`;
  }, [name, look]);
  if (looks.wantsToken) return <TokenForm looks={looks} />;
  return (
    <>
      <Header name={name} look={look} looks={looks} every={every} setEvery={setEvery} />
      <Navigation look={look} current={route.view} />
      <Content looks={looks} route={route} />
    </>
  );
}

function Content({ looks, route }: { looks: Looks; route: Route }) {
  const main = useRef<HTMLElement>(null);
  const look = looks.all[0];
  // The reader of a screen begins at the new view.
  useEffect(() => main.current?.focus({ preventScroll: true }), [route.view, route.item]);
  return (
    <main ref={main} tabIndex={-1}>
      {looks.error !== undefined && <Failure error={looks.error} />}
      {look ? <Guarded key={route.view + route.item} looks={looks} look={look} route={route} /> : looks.error === undefined && <p role="status">Looking …</p>}
    </main>
  );
}

/** A view that fails, for a file that is no look, say, leaves the others as they are. */
function Guarded(props: { looks: Looks; look: Look; route: Route }) {
  const [error] = useErrorBoundary();
  return error === undefined ? <View {...props} /> : <Failure error={error} />;
}

function View({ looks, look, route }: { looks: Looks; look: Look; route: Route }) {
  switch (route.view) {
    case "tasks": return <TasksView look={look} looks={looks} route={route} />;
    case "group": return <GroupView key={route.item} look={look} id={route.item} />;
    case "task": return <TaskView key={route.item} look={look} id={Number(route.item)} />;
    case "threads": return <ThreadsView look={look} route={route} />;
    case "compare": return <CompareView all={looks.all} opened={looks.opened} open={looks.open} />;
    case "binary": return <BinaryView />;
    case "downloads": return <DownloadsView look={look} />;
    default: return <DiagnosisView look={look} busy={looks.busy} />;
  }
}

interface HeaderProps { name: string; look?: Look; looks: Looks; every: number; setEvery: (seconds: number) => void }

function Header({ name, look, looks, every, setEvery }: HeaderProps) {
  const capture = look?.diagnosis?.capture ?? look?.tasks.capture;
  return (
    <header class="top">
      <h1><span class={`light ${grade(look?.diagnosis)}`} /> {name || "delouse"}</h1>
      <p role="status" class="when">
        {look && capture && (
          <>Looked at <b>{clock(look.at)}</b>; the program {pause(capture)}{!capture.consistent && ", parts are of different moments"}</>
        )}
        {looks.busy && <span class="busy"> {looks.busy} …</span>}
      </p>
      <div class="actions">
        <button type="button" disabled={looks.busy !== ""} onClick={() => looks.again()} title="Key: r">Look again</button>
        <button type="button" disabled={looks.busy !== ""} onClick={() => looks.again(GROWTH_SECONDS)}
          title={`Looks for ${GROWTH_SECONDS} s at which groups of tasks only grow`}>What grows?</button>
        <label>
          every{" "}
          <select value={String(every)} onChange={(event) => setEvery(Number((event.currentTarget as HTMLSelectElement).value))}>
            {[0, 2, 5, 10, 30, 60].map((seconds) => <option value={String(seconds)}>{seconds === 0 ? "never" : `${seconds} s`}</option>)}
          </select>
        </label>
        <ThemeButton />
      </div>
    </header>
  );
}

function Navigation({ look, current }: { look?: Look; current: string }) {
  const parent = current === "task" || current === "group" ? "tasks" : current;
  const number = (view: string) => {
    if (view === "diagnosis") return look?.diagnosis?.findings.length || undefined;
    return view === "tasks" ? look?.tasks.total : undefined;
  };
  return (
    <nav aria-label="Views">
      {VIEWS.map((view, at) => (
        <a href={`#/${view}`} aria-current={view === parent ? "page" : undefined} title={`Key: ${at + 1}`}>
          {view}{number(view) !== undefined && <span class="place"> {number(view)?.toLocaleString("en-US")}</span>}
        </a>
      ))}
    </nav>
  );
}

const THEMES = ["system", "light", "dark"];

function ThemeButton() {
  const [theme, setTheme] = useState(() => localStorage.getItem("delouse-theme") ?? "system");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("delouse-theme", theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
  return (
    <button type="button" class="quiet" onClick={() => setTheme(next)} title="Colours of the page" aria-label={`Colours: ${theme}`}>
      ◐ {theme === "system" ? "auto" : theme}
    </button>
  );
}

function TokenForm({ looks }: { looks: Looks }) {
  const [token, setToken] = useState("");
  return (
    <main class="token">
      <h1>delouse</h1>
      <form onSubmit={(event) => { event.preventDefault(); looks.withToken(token); }}>
        <label for="token">This server answers with its token only (<code>DELOUSE_TOKEN</code>).</label>
        <input id="token" type="password" autocomplete="off" autoFocus value={token}
          onInput={(event) => setToken((event.currentTarget as HTMLInputElement).value.trim())} />
        <button type="submit" disabled={token === "" || looks.busy !== ""}>Look</button>
      </form>
      {looks.isRefused && !looks.busy && <Failure error="This is not the server's token." />}
      <p class="place">It is sent in a header, and forgotten when this page is closed.</p>
    </main>
  );
}

/** The name of the program's file. */
function useProgramName(mayAsk: boolean): string {
  const [name, setName] = useState("");
  useEffect(() => {
    if (!mayAsk) return;
    // Without it, the page is called delouse.
    get<{ path?: string }>("/elf/info").then(({ path }) => setName(path?.split("/").pop() ?? ""), () => setName(""));
  }, [mayAsk]);
  return name;
}

function useKeys(looks: Looks) {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      const isTyping = ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName);
      if (event.key === "Escape" && isTyping) return target.blur();
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      const view = VIEWS[Number(event.key) - 1];
      if (view) location.hash = `#/${view}`;
      else if (event.key === "r") looks.again();
      else if (event.key === "/") {
        const search = document.getElementById("search");
        if (!search) return;
        search.focus();
        event.preventDefault();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [looks.again]);
}

