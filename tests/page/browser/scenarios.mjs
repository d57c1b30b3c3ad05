// What a person does with the page of each program. Usage: node scenarios.mjs NAME EXECUTABLE; or with the address of a
// program that runs: node scenarios.mjs NAME http://localhost:7132/
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { assert, assertFits, diagnosed, idle, screenshot, text, withPage } from "./harness.mjs";
import { withProgram } from "./program.mjs";

const TOKEN = "s3cret-of-this-test";
const transfers = "two transfers on their way";

/** What is done, and the line that the program prints when it can begin. */
const scenarios = {
  deadlock: { run: deadlock, ready: transfers },
  leak: { run: leak, ready: "connection 2" },
  blockedWorker: { run: blockedWorker, ready: "still serving" },
  busy: { run: busy, ready: "strokes a second" },
  manyTasks: { run: manyTasks, ready: "control ", args: ["100000", "300"] },
  manyStacks: { run: manyStacks, ready: "control ", args: ["3000", "1500"] },
  pages: { run: pages, ready: "control ", args: ["400", "3"] },
  names: { run: names, ready: "ready" },
  token: { run: token, ready: transfers, env: { DELOUSE_TOKEN: TOKEN } },
  otherOrigin: { run: otherOrigin, ready: transfers },
  small: { run: small, ready: transfers },
};

async function deadlock(url) {
  await withPage({ url }, async (page) => {
    await page.goto(url);
    await diagnosed(page);
    const verdict = await text(page, ".verdict.bad");
    assert(/^(Deadlock: )?[Tt]ask \d+ and task \d+ wait for each other/.test(verdict.replace("Deadlock: ", "")), verdict);
    const when = await text(page, ".when");
    assert(/Looked at \d\d:\d\d:\d\d; the program stood still for [\d.]+ (µs|ms)/.test(when), when);
    assert((await text(page, ".finding")).includes("take these locks in the same order everywhere"), "no remedy");
    assert(await page.locator(".finding svg .node.task.cycle").count() === 2, "two tasks in the circle");
    assert(await page.locator(".finding svg .node.resource.cycle").count() === 2, "two locks in the circle");
    assert(await page.locator(".finding svg .arrow.cycle").count() === 4, "four arrows in the circle");
    await screenshot(page, "deadlock-1400-light");
    await fromWaiterToHolder(page);
    await secondLook(page);
    await keyboard(page);
    await downloads(page);
  });
}

/** Searches for a waiter, and follows the links to what holds what it waits for, and back. */
async function fromWaiterToHolder(page) {
  await page.keyboard.press("2");
  await page.locator("#search").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("DEBIT_first");
  assert(await page.locator(".rows > li").count() === 1, "one group has debit_first");
  await page.locator(".rows > li").first().locator("summary").click();
  assert((await text(page, ".rows .stack")).includes("→ mutex 0x"), "what it waits for");
  await page.getByRole("link", { name: "what it waits for" }).click();
  await page.getByRole("heading", { name: "Waits for" }).waitFor();
  assert((await text(page, ".stack")).includes("deadlock::debit_first at"), "the stack of the waiter");
  assert(await page.locator("svg .node.cycle").count() === 4, "the circle around it");
  assert(await page.locator("svg .node.task").count() === 3, "the main future waits for it, too");
  await screenshot(page, "task-1400-light");
  const [waiter] = (await text(page, "h2")).match(/\d+/);
  await page.locator("main li li a").first().click();
  await page.waitForFunction((waiter) => !document.querySelector("h2")?.textContent?.endsWith(` ${waiter}`), waiter);
  await page.getByText("deadlock::credit_first").first().waitFor();
  await page.locator(`svg a[href="#/task/${waiter}"]`).first().click();
  await page.getByRole("heading", { name: `Task ${waiter}` }).waitFor();
}

async function secondLook(page) {
  await page.getByRole("heading", { name: "Around it" }).waitFor();
  await page.keyboard.press("4");
  await page.getByText("There is no earlier look").waitFor();
  await page.keyboard.press("r");
  await page.getByText(/\d+ tasks? at .*, \d+ at .*; \d+ places? of \d+ changed/).waitFor();
  await idle(page);
  await page.getByRole("heading", { name: "Findings in both" }).waitFor();
}

async function keyboard(page) {
  await page.keyboard.press("1");
  await page.locator(".finding svg").waitFor();
  // Every task of the graph can be reached and opened without a mouse.
  await page.locator(".finding svg a.node").first().focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /^Task \d+$/ }).waitFor();
  await page.keyboard.press("3");
  await page.locator(".rows").waitFor();
  await page.keyboard.press("5");
  await page.getByText("Debug information: full types").waitFor();
}

async function downloads(page) {
  await page.keyboard.press("6");
  for (const [title, label, part] of [
    ["This look", "JSON", '"findings":[{"kind":"deadlock"'],
    ["Diagnosis", "text", "Suggested fix"],
    ["Tasks", "JSON", '"engine":"memory"'],
    ["Tasks", "flame graph", "deadlock::debit_first ("],
    ["What waits for what", "Graphviz", "digraph"],
  ]) {
    const row = page.locator(".downloads > div").filter({ has: page.getByText(title, { exact: true }) });
    const [file] = await Promise.all([page.waitForEvent("download"), row.getByRole("button", { name: label, exact: true }).click()]);
    const saved = readFileSync(await file.path(), "utf8");
    assert(saved.includes(part), `${title}, ${label}: ${saved.slice(0, 300)}`);
    if (title === "This look") await compareWithSaved(page, saved);
  }
}

/** A colleague's look, and files that are none. */
async function compareWithSaved(page, saved) {
  const open = (name, text) => page.locator("input[type=file]").setInputFiles({ name, mimeType: "application/json", buffer: Buffer.from(text) });
  await page.keyboard.press("4");
  await open("yesterday.json", JSON.stringify({ ...JSON.parse(saved), at: Date.UTC(2026, 0, 2, 3, 4, 5) }));
  await page.getByText(/^3 tasks at 02\/01\/2026 0\d:04:05, 3 at /).waitFor();
  await page.getByRole("heading", { name: "Findings in both" }).waitFor();
  await open("other.json", "{}");
  await page.getByText("This file is no saved look.").waitFor();
  await open("broken.json", JSON.stringify({ at: 7, tasks: { groups: [null] } }));
  await page.locator(".failure").waitFor();
  await page.keyboard.press("6");
}

async function leak(url) {
  await withPage({ url }, async (page) => {
    await page.goto(url);
    await diagnosed(page);
    const verdict = await text(page, ".verdict.bad");
    assert(/tasks keep one another alive/.test(verdict), verdict);
    await screenshot(page, "leak-1400-light");
    await page.keyboard.press("2");
    const row = page.locator(".rows > li").filter({ hasText: "leak::read_half" });
    await row.locator("summary").click();
    await row.getByRole("link", { name: /^all \d+$/ }).click();
    await page.locator("tbody tr").first().waitFor();
    const cells = await page.locator("tbody tr").first().locator("td").allInnerTexts();
    assert(/^task \d+$/.test(cells[0]) && cells[1] === "idle" && /^channel recv 0x/.test(cells[2]), cells.join(" | "));
    // Two more connections come in each second.
    await page.keyboard.press("4");
    for (let looks = 0; (await page.locator("tr.grew").count()) < 2; looks++) {
      assert(looks < 20, "the leak does not grow");
      await page.keyboard.press("r");
      await page.locator(".busy").waitFor();
      await idle(page);
    }
    const grown = await page.locator("tr.grew").allInnerTexts();
    assert(grown.some((line) => line.includes("leak::write_half")), grown.join("\n"));
    await screenshot(page, "compare-1400-light");
  });
}

async function blockedWorker(url) {
  await withPage({ url, dark: true }, async (page) => {
    await page.goto(url);
    await diagnosed(page);
    const verdict = await text(page, ".verdict");
    assert(/has not yielded/.test(verdict), verdict);
    assert(await page.locator(".finding svg .node.thread").count() === 2, "the blocked thread, and that with the lock");
    await screenshot(page, "blocked-worker-1400-dark");
    await page.keyboard.press("3");
    const row = page.locator(".rows > li").filter({ hasText: "waiting for a lock on a tokio worker" });
    await row.waitFor();
    const own = await row.locator(".own").innerText();
    assert(own.includes("blocked_worker::book") && own.includes("blocked-worker.rs:"), own);
    await row.getByRole("link", { name: /^task \d+$/ }).click();
    await page.getByRole("heading", { name: /^Task \d+$/ }).waitFor();
    await page.getByText("now, innermost first:").waitFor();
    await screenshot(page, "blocked-task-1400-dark");
  });
}

async function busy(url) {
  await withPage({ url }, async (page) => {
    await page.goto(url);
    await diagnosed(page);
    assert(await page.locator(".finding").count() === 0, "a finding on a healthy program");
    await page.keyboard.press("2");
    await page.getByText(/^\d+ of 33 tasks in /).waitFor();
    await page.getByLabel("Kind").selectOption("main");
    await page.getByText(/^1 of 33 tasks in 1 group/).waitFor();
    await page.getByLabel("every").selectOption("2");
    const when = await text(page, ".when b");
    await page.waitForFunction((when) => document.querySelector(".when b")?.textContent !== when, when);
  });
}

/** The first answer is enough for this: the diagnosis of so many tasks takes a build without optimisation a minute or more. */
async function manyTasks(url) {
  return withPage({ url }, async (page, seen, browser) => {
    const arrived = page.waitForResponse((response) => response.url().includes("groups=true"));
    await page.goto(`${url}#/tasks`);
    await (await arrived).finished();
    const answered = Date.now();
    await page.locator(".rows > li").first().waitFor();
    const first = Date.now() - answered;
    await page.getByText(/^100,00\d of 100,00\d tasks in \d+ groups/).waitFor();
    const typed = await typing(page);
    assert(await page.locator(".rows > li").count() > 0, "nothing found");
    const memory = await rendererMemory(browser);
    await Promise.all(seen.sizes.slice(0, 2));
    assert(seen.largest > 100_000, "no answer");
    assert(first < 1000, `first content ${first} ms after the answer`);
    assert(typed < 100, `a letter in the search takes ${typed} ms`);
    assert(memory < 200e6, `the page takes ${memory} bytes of memory`);
    return { first, typed, memory, largest: seen.largest };
  });
}

/** More stacks than fit into one answer. */
async function manyStacks(url) {
  await withPage({ url }, async (page) => {
    await page.goto(`${url}#/tasks`);
    const more = page.getByRole("button", { name: "Load more" });
    await more.waitFor();
    await idle(page);
    while (await more.count() > 0) {
      await more.click();
      await page.locator(".busy").waitFor();
      await idle(page);
    }
    await page.getByText(/^3,00\d of 3,00\d tasks in 1,50\d groups/).waitFor();
  });
}

async function pages(url) {
  await withPage({ url }, async (page) => {
    await page.goto(`${url}#/tasks`);
    await page.locator(".rows > li").first().waitFor();
    await idle(page);
    const row = page.locator(".rows > li").filter({ has: page.locator(".number", { hasText: /^13\d$/ }) }).first();
    await row.locator("summary").click();
    await row.getByRole("link", { name: /^all 13\d$/ }).click();
    await page.getByRole("button", { name: "Next" }).click();
    await page.getByText(/^51 to 100 of 13\d, at /).waitFor();
    await page.locator("tbody tr a").first().click();
    await page.locator("svg .node.centre").waitFor();
    await screenshot(page, "many-task-1400-light");
  });
}

/** Milliseconds from a letter to the frame that shows its result: the shortest of some, as the machine may be busy. */
async function typing(page) {
  return page.evaluate(async () => {
    const search = document.getElementById("search");
    const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
    let best = Infinity;
    for (const value of ["r", "re", "ret", "retr", "retri", "retrie", "retries", "limits", "li", "l", "handles"]) {
      const begun = performance.now();
      set.call(search, value);
      search.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
      best = Math.min(best, performance.now() - begun);
    }
    return Math.round(best);
  });
}

/** Anonymous memory of the process that runs the page. */
async function rendererMemory(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => {
    const status = readFileSync(`/proc/${id}/status`, "utf8");
    return Number(/RssAnon:\s+(\d+)/.exec(status)[1]) * 1024;
  });
  return Math.max(...renderers);
}

async function names(url) {
  await withPage({ url }, async (page) => {
    await page.goto(`${url}#/threads`);
    await page.locator(".rows").waitFor();
    await page.locator("#search").fill("<img src=x>");
    await page.locator(".rows b", { hasText: /^\d+$/ }).first().waitFor();
    const row = await text(page, ".rows > li");
    assert(row.includes("<img src=x>"), row);
    await page.keyboard.press("Escape");
    await page.keyboard.press("2");
    const task = page.locator(".rows > li").filter({ hasText: "page_names::img<" });
    await task.locator("summary").click();
    const stack = await task.locator(".stack").innerText();
    assert(/page_names::img<src>/.test(stack), stack);
    await task.getByRole("link", { name: "what it waits for" }).click();
    await page.getByRole("heading", { name: /^Task \d+$/ }).waitFor();
    await page.getByText("As of").waitFor();
    assert(await page.locator("img").count() === 0, "a name became an element");
    const elements = await page.evaluate(() => [...document.querySelectorAll("body *")].map(({ localName }) => localName));
    assert(elements.every((name) => !/page_names|^src$/.test(name)), "a name became an element");
  });
}

async function token(url) {
  // The page itself needs no token, its answers do.
  const status = async (path, headers) => (await fetch(`${url}${path}`, { headers })).status;
  assert(await status("", { accept: "text/html" }) === 200, "the page without a token");
  assert(await status("", { accept: "*/*" }) === 401, "the document without a token");
  assert(await status("diagnosis", { accept: "text/html" }) === 401, "a diagnosis without a token");
  await withPage({ url, allowed: [401, 429] }, async (page, seen) => {
    await page.goto(url);
    await page.getByLabel(/answers with its token/).fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("This is not the server's token.").waitFor();
    assert(await page.locator(".verdict").count() === 0, "an answer without the token");
    await page.getByLabel(/answers with its token/).fill(TOKEN);
    await page.keyboard.press("Enter");
    await diagnosed(page);
    await page.keyboard.press("6");
    const row = page.locator(".downloads > div").filter({ has: page.getByText("Threads", { exact: true }) });
    const [file] = await Promise.all([page.waitForEvent("download"), row.getByRole("button", { name: "JSON" }).click()]);
    assert(readFileSync(await file.path(), "utf8").startsWith('{"stacktrace"'), "a download with the token");
    assert(seen.requests.every(({ url }) => !url.includes(TOKEN)), "the token is in an address");
    const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
    assert(!stored.includes(TOKEN), `the token is stored: ${stored}`);
    const { headers } = seen.requests.findLast(({ url }) => url.includes("/stacktrace/"));
    assert(headers.authorization === `Bearer ${TOKEN}`, JSON.stringify(headers));
  });
}

/** A page of another origin gets no answer, and cannot put ours into a frame. */
async function otherOrigin(url) {
  const page = `<!doctype html><title>waiting</title><iframe src="${url}"></iframe><script>
    fetch("${url}diagnosis").then((r) => r.text(), (e) => "refused: " + e).then((text) => { document.title = text; });
  </script>`;
  const server = createServer((_, response) => response.setHeader("content-type", "text/html").end(page));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const other = `http://127.0.0.1:${server.address().port}/`;
  const expected = [];
  await withPage({ url: other }, async (page, seen) => {
    await page.goto(other);
    await page.waitForFunction(() => document.title !== "waiting");
    const title = await page.title();
    assert(title.startsWith("refused: "), title);
    const frame = page.frames().find((frame) => frame !== page.mainFrame());
    const inside = await frame.evaluate(() => document.body.innerText).catch(() => "");
    assert(!inside.includes("Look") && !inside.includes("task"), `the frame shows ${inside}`);
    // Here, the other origin is the program's, and its refusals are what is wanted.
    expected.push(...seen.problems.splice(0));
  });
  server.close();
  assert(expected.some((line) => line.includes("CORS") || line.includes("403")), expected.join("\n"));
}

/** The window of a telephone, dark and light, for each view. */
async function small(url) {
  for (const dark of [false, true]) {
    const theme = dark ? "dark" : "light";
    await withPage({ url, width: 400, dark }, async (page) => {
      await page.goto(url);
      await diagnosed(page);
      const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert((background === "rgb(20, 23, 27)") === dark, `${theme}: ${background}`);
      await assertFits(page, 400);
      await screenshot(page, `deadlock-400-${theme}`);
      for (const [key, view] of ["tasks", "threads", "compare", "binary", "downloads"].entries()) {
        await page.keyboard.press(String(key + 2));
        await page.locator(`nav a[aria-current]`, { hasText: view }).waitFor();
        await page.getByText(/^(Looking|Reading) .*…$/).waitFor({ state: "detached" });
        await assertFits(page, 400);
        await screenshot(page, `${view}-400-${theme}`);
      }
      await page.keyboard.press("1");
      await page.locator(".finding svg a.node").first().click();
      await page.getByRole("heading", { name: "Around it" }).waitFor();
      await assertFits(page, 400);
      await screenshot(page, `task-400-${theme}`);
    });
  }
}

const [name, target] = process.argv.slice(2);
try {
  const { run, ...program } = scenarios[name];
  const figures = target.startsWith("http:")
    ? await run(target)
    : await withProgram({ executable: target, ...program }, run);
  if (figures) console.log(JSON.stringify(figures));
} catch (error) {
  console.error(error.stack ?? error);
  process.exitCode = 1;
}
