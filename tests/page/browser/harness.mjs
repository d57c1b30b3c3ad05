// A page in headless Chromium, and what must hold for it whatever it shows: no error in the console, no violation of its
// Content-Security-Policy, no request to another origin, no answer of a megabyte.
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";

const require = createRequire(new URL("../../../delouse/page/package.json", import.meta.url));
const { chromium } = require("playwright-core");

/** Longer than any step takes on a loaded machine. */
export const PATIENCE = 180_000;
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
/** The page must fetch no more at a time. */
const MOST_BYTES = 1_000_000;

export function assert(holds, message) {
  if (!holds) throw new Error(message);
}

/**
 * Runs `scenario` with a page at `url`; fails where the page breaks a rule. `allowed`: statuses that are no errors.
 * `isOurs`: the page is delouse's; that of another tool has rules of its own.
 */
export async function withPage({ url, width = 1400, dark = false, allowed = [429], isOurs = true }, scenario) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: FLAGS, timeout: PATIENCE });
  try {
    const context = await browser.newContext({
      viewport: { width, height: 900 },
      colorScheme: dark ? "dark" : "light",
      acceptDownloads: true,
    });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    const seen = watch(page, new URL(url).origin, allowed);
    await page.addInitScript(() => {
      addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
        console.error(`CSP violation: ${violatedDirective} ${blockedURI}`));
    });
    const result = await scenario(page, seen, browser);
    await Promise.all(seen.sizes);
    assert(!isOurs || seen.problems.length === 0, `problems: ${seen.problems.join("\n")}`);
    return result;
  } catch (error) {
    const pages = browser.contexts().flatMap((context) => context.pages());
    const text = await pages[0]?.evaluate(() => document.body.innerText).catch(() => "");
    throw new Error(`${error.message}\nthe page shows:\n${(text ?? "").slice(0, 4000)}`);
  } finally {
    await browser.close();
  }
}

function watch(page, origin, allowed) {
  const seen = { problems: [], requests: [], sizes: [], largest: 0 };
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    const isAllowed = allowed.some((status) => message.text().includes(`status of ${status} `));
    if (!isAllowed) seen.problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => seen.problems.push(`error: ${error.stack}`));
  page.on("request", (request) => {
    const url = request.url();
    seen.requests.push({ url, headers: request.headers() });
    const isOwn = url.startsWith(`${origin}/`) || url.startsWith("data:") || url.startsWith(`blob:${origin}/`);
    if (!isOwn) seen.problems.push(`request to ${url}`);
  });
  page.on("response", (response) => {
    const size = response.body().then((body) => {
      seen.largest = Math.max(seen.largest, body.length);
      if (body.length >= MOST_BYTES) seen.problems.push(`${response.url()} has ${body.length} bytes`);
    }, () => {});
    seen.sizes.push(size);
  });
  return seen;
}

/** Waits until the page has nothing more to ask, and the diagnosis is there. */
export async function diagnosed(page) {
  await page.locator(".verdict:not(.unknown)").waitFor();
  await idle(page);
}

export async function idle(page) {
  await page.locator(".busy").waitFor({ state: "detached" });
}

/** A picture, where the caller wants pictures. */
export async function screenshot(page, name) {
  const directory = process.env.DELOUSE_SCREENSHOTS;
  if (!directory) return;
  mkdirSync(directory, { recursive: true });
  await page.screenshot({ path: `${directory}/${name}.png` });
}

/** Nothing must be wider than the window: only stacks, tables and graphs scroll, each by itself. */
export async function assertFits(page, width) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert(wide <= width, `the page is ${wide} wide in a window of ${width}`);
}

export async function text(page, selector) {
  return page.locator(selector).first().innerText();
}
