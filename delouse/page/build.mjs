// Builds the page into dist/: `page.html`, with its styles and its script in it, and `policy.txt`, the
// Content-Security-Policy with their hashes. With --check, fails where dist/ differs from what the sources make.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

async function bundle(entry) {
  const result = await build({
    absWorkingDir: path("."),
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2022",
    charset: "utf8",
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "none",
    write: false,
    outdir: "dist",
  });
  return result.outputFiles[0].text.trim();
}

const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

function notices() {
  const packages = ["preact", "@dagrejs/dagre", "@dagrejs/graphlib"];
  return packages.map((name) => {
    const { version } = JSON.parse(readFileSync(path(`node_modules/${name}/package.json`), "utf8"));
    const licence = readFileSync(path(`node_modules/${name}/LICENSE`), "utf8").trim();
    return `This page contains ${name} ${version}.\n\n${licence}\n`;
  }).join("\n");
}

const script = await bundle("src/main.tsx");
const style = await bundle("src/style.css");
const icon =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='6' fill='%23d9480f'/%3E%3C/svg%3E";
// A script ends where the parser reads its end tag, and a comment at its end.
if (/<\/script|<!--/i.test(script) || /<\/style/i.test(style) || /--/.test(notices())) {
  throw new Error("the page would end too early");
}
const page = `<!doctype html>
<!--
${notices()}-->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>delouse</title>
<link rel="icon" href="${icon}">
<style>${style}</style>
</head>
<body>
<noscript>This page needs JavaScript. Without: curl 'ADDRESS/?format=text' lists what can be asked.</noscript>
<div id="page"></div>
<script>${script}</script>
</body>
</html>
`;
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "connect-src 'self'",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join("; ");

const files = { "dist/page.html": page, "dist/policy.txt": policy };
if (process.argv.includes("--check")) {
  const differs = Object.entries(files).filter(([name, text]) => readFileSync(path(name), "utf8") !== text);
  if (differs.length > 0) {
    console.error(`${differs.map(([name]) => name).join(", ")}: not what the sources make; run: npm run build`);
    process.exit(1);
  }
  console.log("dist/ is what the sources make");
} else {
  mkdirSync(path("dist"), { recursive: true });
  Object.entries(files).forEach(([name, text]) => writeFileSync(path(name), text));
  console.log(`page.html: ${page.length} bytes`);
}
