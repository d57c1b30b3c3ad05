// Looks at the program: the current one and earlier ones, and the loop that takes them.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, setToken } from "./api";
import type { Diagnosis, Look, TasksAnswer } from "./model";

/** Looks that are kept for comparisons. */
const KEPT = 20;

export interface Looks {
  /** The last one first. */
  all: Look[];
  /** What is being done. */
  busy: string;
  error?: unknown;
  /** The server wants a token, or another one than it was given. */
  wantsToken: boolean;
  isRefused: boolean;
  again: (seconds?: number) => void;
  /** Asks for the groups that the last answer left out. */
  more: () => void;
  withToken: (token: string) => void;
  /** Looks that were saved as files, of this program or of another one. */
  opened: Look[];
  open: (look: Look) => void;
}

export function useLooks(every: number): Looks {
  const [all, setAll] = useState<Look[]>([]);
  const [opened, setOpened] = useState<Look[]>([]);
  const [busy, setBusy] = useState("");
  const [error, setError] = useState<unknown>();
  const [wantsToken, setWantsToken] = useState(false);
  const [isRefused, setIsRefused] = useState(false);
  const running = useRef(false);
  const given = useRef(false);

  const take = useCallback(async (seconds: number) => {
    const show = (look: Look) => {
      // Looks of the same time are one, first without and then with its diagnosis.
      setAll((all) => [look, ...all.filter((other) => other.at !== look.at)].sort((a, b) => b.at - a.at).slice(0, KEPT));
    };
    setBusy("looking at the tasks");
    const tasks = await get<TasksAnswer>("/stacktrace/tokio?groups=true");
    const look: Look = { at: Date.now(), tasks };
    show(look);
    setWantsToken(false);
    setBusy(seconds > 0 ? `watching what grows for ${seconds} s` : "diagnosing");
    const diagnosis = await get<Diagnosis>(`/diagnosis?ids=200${seconds > 0 ? `&seconds=${seconds}` : ""}`);
    show({ ...look, diagnosis });
  }, []);

  const run = useCallback((work: () => Promise<void>) => {
    if (running.current) return;
    running.current = true;
    setError(undefined);
    work()
      .catch((error: unknown) => {
        if (error instanceof ApiError && error.status === 401) {
          setWantsToken(true);
          setIsRefused(given.current);
        } else {
          setError(error);
        }
      })
      .finally(() => {
        running.current = false;
        setBusy("");
      });
  }, []);
  const again = useCallback((seconds = 0) => run(() => take(seconds)), [run, take]);

  const more = () => run(async () => {
    const [look] = all;
    if (!look) return;
    setBusy("looking at more tasks");
    const known = look.tasks.groups ?? [];
    const rest = await get<TasksAnswer>(`/stacktrace/tokio?groups=true&offset=${known.length}`);
    const keys = new Set(known.map(({ key }) => key));
    const groups = [...known, ...(rest.groups ?? []).filter(({ key }) => !keys.has(key))];
    const tasks = { ...look.tasks, groups, more_groups: rest.more_groups };
    setAll((all) => all.map((other) => (other.at === look.at ? { ...other, tasks } : other)));
  });

  useEffect(() => again(), [again]);
  useEffect(() => {
    if (every === 0) return;
    const timer = setInterval(() => document.visibilityState === "visible" && again(), every * 1000);
    return () => clearInterval(timer);
  }, [every, again]);

  const withToken = (token: string) => {
    setToken(token);
    given.current = true;
    again();
  };
  const open = (look: Look) => setOpened((opened) => [look, ...opened.filter((other) => other.at !== look.at)]);
  return { all, busy, error, wantsToken, isRefused, again, more, withToken, opened, open };
}
