// The view and its parameters are in the fragment of the address, so that links, history and reloads work.
import { useEffect, useState } from "preact/hooks";

export interface Route {
  view: string;
  /** What is shown of it: the id of a task, the key of a group. */
  item: string;
  query: URLSearchParams;
}

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view = "", item = ""] = path.split("/");
  return { view: view || "diagnosis", item, query: new URLSearchParams(query) };
}

export function useRoute(): Route {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** Changes parameters of the view without a new entry of the history. */
export function replaceQuery(view: string, values: Record<string, string>) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ""));
  const text = query.toString();
  history.replaceState(null, "", `#/${view}${text ? `?${text}` : ""}`);
}
