// Requests to the server. The token is sent in a header, and is kept in memory only.

let token = "";

export function setToken(value: string) {
  token = value;
}

export function hasToken() {
  return token !== "";
}

/** An answer that is no success, with the server's message. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** How often a request is repeated while the server captures something else, and how long that may take in all. */
const PATIENCE_MS = 30_000;

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function request(path: string): Promise<Response> {
  const begun = performance.now();
  for (;;) {
    const headers: HeadersInit = token ? { Authorization: `Bearer ${token}` } : {};
    let response: Response;
    try {
      response = await fetch(path, { headers, cache: "no-store" });
    } catch {
      throw new ApiError(0, "The server does not answer: the program has ended, or the connection is gone.");
    }
    if (response.ok) return response;
    if (response.status !== 429 || performance.now() - begun > PATIENCE_MS) {
      const answer = await response.json().catch(() => ({}));
      const message = typeof answer.message === "string" ? answer.message : `the server answered ${response.status}`;
      throw new ApiError(response.status, message);
    }
    // Another client's capture is running: one runs at a time.
    await sleep(250);
  }
}

/** The requests of the page run one after the other, as the server does one capture at a time. */
let last: Promise<unknown> = Promise.resolve();

export function get<A>(path: string): Promise<A> {
  const next = last.then(() => request(path)).then((response) => response.json() as Promise<A>);
  last = next.catch(() => undefined);
  return next;
}

export async function getText(path: string): Promise<string> {
  return (await request(path)).text();
}

/** Saves an answer as a file. Without a token, the browser streams it to the disk. */
export async function download(path: string, name: string) {
  if (!hasToken()) return save(path, name);
  const url = URL.createObjectURL(await (await request(path)).blob());
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export function saveText(text: string, name: string) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function save(url: string, name: string) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}
