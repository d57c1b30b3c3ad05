// The field's own tools with what the server answers: Go's pprof, speedscope in Chromium, promtool, Prometheus.
// Usage: node tools.mjs NAME EXECUTABLE, or with the address of a program that runs.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createSocket } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert, PATIENCE, screenshot, withPage } from "./harness.mjs";
import { withProgram } from "./program.mjs";

const TOKEN = "s3cret-of-this-test";
const ready = "two transfers on their way";

const scenarios = {
  pprof: { run: pprof, ready },
  speedscope: { run: speedscope, ready },
  prometheus: { run: prometheus, ready, env: { DELOUSE_TOKEN: TOKEN } },
};

async function withDirectory(use) {
  const directory = mkdtempSync(join(tmpdir(), "delouse-tools-"));
  try {
    return await use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function bytes(url, headers = {}) {
  const response = await fetch(url, { headers });
  const body = Buffer.from(await response.arrayBuffer());
  assert(response.ok, `${url}: ${response.status} ${body}`);
  return { body, headers: response.headers };
}

async function pprof(url) {
  await withDirectory(async (directory) => {
    const go = (...args) => execFileSync("go", ["tool", "pprof", ...args], {
      encoding: "utf8",
      env: { ...process.env, HOME: directory, PPROF_TMPDIR: directory },
      stdio: ["ignore", "pipe", "pipe"],
    });
    // As a user types it: pprof fetches the profile itself.
    const top = go("-top", `${url}debug/pprof/goroutine`);
    assert(/Type: goroutine/.test(top) && /of 3 total/.test(top), top);
    for (const [name, query, parts] of [
      ["tasks", "stacktrace/tokio?format=pprof", ["deadlock::debit_first", "deadlock::credit_first", "deadlock::main"]],
      ["stuck", "debug/pprof/goroutineleak", ["deadlock::debit_first", "deadlock::credit_first"]],
      ["threads", "stacktrace/rust?format=pprof", ["deadlock::main", "epoll_wait"]],
      ["created", "debug/pprof/threadcreate", ["deadlock::main"]],
    ]) {
      const file = join(directory, name);
      writeFileSync(file, (await bytes(`${url}${query}`)).body);
      for (const command of ["-top", "-traces", "-raw"]) {
        const shown = go(command, file);
        parts.forEach((part) => assert(shown.includes(part), `${name} ${command}: no ${part} in ${shown}`));
      }
    }
    const traces = go("-traces", join(directory, "tasks"));
    // The leaf is first, the lines are the program's, and the labels say what is waited for.
    assert(/wait:\s+mutex/.test(traces) && /state:\s+idle/.test(traces), traces);
    assert(/tokio::sync::mutex::Mutex::lock\n\s+\w*deadlock::(debit|credit)_first/.test(traces), traces);
    assert(/deadlock\.rs:34/.test(go("-lines", "-traces", join(directory, "tasks"))), "the line of the await");
    const difference = go("-top", `${url}debug/pprof/goroutine?seconds=1`);
    assert(!difference.includes("debit_first"), `nothing has changed: ${difference}`);
  });
  await texts(url);
}

/** The texts for people, and the headers. */
async function texts(url) {
  const { body, headers } = await bytes(`${url}debug/pprof/goroutine`);
  assert(body[0] === 0x1f && body[1] === 0x8b, "gzip");
  assert(headers.get("content-type") === "application/octet-stream", headers.get("content-type"));
  assert(headers.get("content-disposition") === 'attachment; filename="goroutine"', "a name");
  assert(headers.get("x-content-type-options") === "nosniff", "nosniff");
  const text = async (path) => (await bytes(`${url}${path}`)).body.toString();
  assert((await text("debug/pprof/")).includes("/debug/pprof/goroutineleak"), "the index");
  const counted = await text("debug/pprof/goroutine?debug=1");
  assert(/^goroutine profile: total 3\n/.test(counted) && /# labels: {"kind":"task", "state":"idle"/.test(counted), counted);
  const each = await text("debug/pprof/goroutine?debug=2");
  assert(/^goroutine \d+ \[mutex\]:\n(?:.+\n)+\w*deadlock::debit_first\(\)\n\t\S*examples\/src\/bin\/deadlock.rs:34$/m.test(each), each);
  const folded = await text("stacktrace/tokio?format=folded");
  const line = /(?:^|;)\w*deadlock::debit_first \(\S*examples\/src\/bin\/deadlock\.rs:34\);tokio::sync::mutex::Mutex<T>::lock \(.*\);.*\[mutex\] 1$/m;
  assert(line.test(folded), folded);
  const threads = await text("stacktrace/rust?format=folded");
  assert(threads.trimEnd().split("\n").every((line) => /^.+ \d+$/.test(line)), threads);
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

async function speedscope(url) {
  const site = new URL("../../../delouse/page/node_modules/speedscope/dist/release/", import.meta.url);
  const server = createServer((request, response) => {
    const name = new URL(request.url, "http://site").pathname.slice(1) || "index.html";
    response.setHeader("content-type", TYPES[extname(name)] ?? "application/octet-stream");
    try {
      response.end(readFileSync(fileURLToPath(new URL(name, site))));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    for (const [query, file] of [["format=pprof", "tasks.pb.gz"], ["format=folded", "tasks.folded"]]) {
      const { body } = await bytes(`${url}stacktrace/tokio?${query}`);
      const site = `http://127.0.0.1:${server.address().port}/`;
      await withPage({ url: site, isOurs: false }, async (page) => {
        await page.goto(site);
        await page.locator("input[type=file]").first().setInputFiles({ name: file, mimeType: "application/octet-stream", buffer: body });
        await page.getByText("Sandwich").first().click();
        await page.getByText(/deadlock::debit_first/).first().waitFor();
        await page.getByText(/deadlock::credit_first/).first().waitFor();
        await screenshot(page, `speedscope-${query.slice(7)}`);
      });
    }
  } finally {
    server.close();
  }
}

async function prometheus(url) {
  const authorization = { Authorization: `Bearer ${TOKEN}` };
  // A scrape before anything was captured, one after a diagnosis.
  check((await bytes(`${url}metrics`, authorization)).body.toString(), []);
  await bytes(`${url}diagnosis`, authorization);
  const begun = performance.now();
  const { body, headers } = await bytes(`${url}metrics`, authorization);
  const took = performance.now() - begun;
  assert(headers.get("content-type") === "text/plain; version=0.0.4; charset=utf-8", headers.get("content-type"));
  check(body.toString(), [
    /^delouse_findings\{kind="deadlock",certainty="certain"\} 1$/m,
    /^delouse_tasks\{kind="task",state="idle"\} 2$/m,
    /^delouse_last_look_timestamp_seconds \d+/m,
    /^tokio_alive_tasks\{runtime="multi_thread \d+"\} 2$/m,
    /^tokio_worker_busy_seconds_total\{runtime="multi_thread \d+",worker="1"\} /m,
    /^process_resident_memory_bytes \d{7,}$/m,
  ]);
  const captures = (text) => Number(/^delouse_captures_total (\d+)$/m.exec(text)[1]);
  const before = captures(body.toString());
  await withDirectory((directory) => alerts(url, directory));
  const after = captures((await bytes(`${url}metrics`, authorization)).body.toString());
  assert(before === after, `scrapes have captured: ${before} and ${after} captures`);
  return { scrape_ms: took };
}

function check(text, lines) {
  lines.forEach((line) => assert(line.test(text), `no ${line} in ${text}`));
  const lint = execFileSync("promtool", ["check", "metrics"], { input: text, encoding: "utf8", stdio: "pipe" });
  assert(lint === "", lint);
}

/** Prometheus scrapes with the token, and the rule of README fires. */
async function alerts(url, directory) {
  const file = (name, text) => writeFileSync(join(directory, name), text);
  file("token", TOKEN);
  const readme = readFileSync(new URL("../../../README.md", import.meta.url), "utf8");
  const rules = /```yaml\n(groups:[\s\S]*?)```/.exec(readme)[1];
  // A test does not wait for a minute.
  file("rules.yml", rules.replace(/for: \w+/, "for: 0s"));
  file("prometheus.yml", `
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [rules.yml]
scrape_configs:
  - job_name: app
    authorization: { credentials_file: token }
    static_configs: [{ targets: ["${new URL(url).host}"] }]
`);
  execFileSync("promtool", ["check", "config", "prometheus.yml"], { cwd: directory, stdio: "pipe" });
  const port = await freePort();
  const server = spawn("prometheus", [
    "--config.file=prometheus.yml", `--web.listen-address=127.0.0.1:${port}`, `--storage.tsdb.path=${directory}/data`,
  ], { cwd: directory, stdio: "ignore" });
  const ended = new Promise((resolve) => server.on("exit", resolve));
  try {
    const begun = performance.now();
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/alerts`).then((response) => response.json(), () => undefined);
      const firing = answer?.data?.alerts?.find(({ state, labels }) => state === "firing" && labels.alertname === "Deadlock");
      if (firing) return;
      assert(performance.now() - begun < PATIENCE, `no alert: ${JSON.stringify(answer)}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    server.kill();
    await ended;
  }
}

async function freePort() {
  const socket = createSocket();
  await new Promise((resolve) => socket.listen(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

const [name, target] = process.argv.slice(2);
try {
  const { run, ...program } = scenarios[name];
  const figures = target.startsWith("http:") ? await run(target) : await withProgram({ executable: target, ...program }, run);
  if (figures) console.log(JSON.stringify(figures));
} catch (error) {
  console.error(error.stack ?? error);
  process.exitCode = 1;
}
