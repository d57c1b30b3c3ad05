// Serves the page from its sources, built again for each load, and sends everything else on to a program's server.
// Usage: npm run serve -- http://localhost:7132 [PORT]
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { fileURLToPath } from "node:url";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const [target = "http://localhost:7132", port = "7133"] = process.argv.slice(2);
const { host, hostname, port: targetPort } = new URL(target);

createServer((incoming, outgoing) => {
  if (incoming.url === "/" && (incoming.headers.accept ?? "").includes("text/html")) {
    execFileSync(process.execPath, [path("build.mjs")], { stdio: ["ignore", "ignore", "inherit"] });
    outgoing.setHeader("content-type", "text/html; charset=utf-8");
    outgoing.setHeader("content-security-policy", readFileSync(path("dist/policy.txt"), "utf8"));
    return outgoing.end(readFileSync(path("dist/page.html")));
  }
  const headers = { ...incoming.headers, host };
  delete headers.origin;
  const onward = request({ hostname, port: targetPort, path: incoming.url, method: incoming.method, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  onward.on("error", () => outgoing.destroy());
  incoming.pipe(onward);
}).listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/ shows ${target}`));
