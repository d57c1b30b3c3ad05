// A program with a debug server, as long as a scenario runs.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { PATIENCE } from "./harness.mjs";

/** Starts it, waits until it prints `ready` and its server listens, and calls `scenario` with the server's address. */
export async function withProgram({ executable, args = [], env = {}, ready }, scenario) {
  const program = spawn(executable, args, {
    env: { ...process.env, DELOUSE_BIND: "127.0.0.1:0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  try {
    const lines = [];
    const waiting = [];
    for (const stream of [program.stdout, program.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        lines.push(line);
        waiting.forEach((check) => check());
      });
    }
    const printed = (part) => new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`never printed: ${part}; but: ${lines.join("\n")}`)), PATIENCE);
      const check = () => {
        const found = lines.find((line) => line.includes(part));
        if (found !== undefined) {
          clearTimeout(late);
          resolve(found);
        }
      };
      waiting.push(check);
      check();
    });
    const [, url] = /listening on (http:\S+)/.exec(await printed("listening on http://"));
    await printed(ready);
    return await scenario(`${url}/`);
  } finally {
    program.kill("SIGKILL");
  }
}
