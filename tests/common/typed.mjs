// What tests/grafana/check.mjs and tests/kubernetes/check.mjs share. The tests put it beside each of them, where node_modules is.

import { execFileSync } from "node:child_process";
import { unlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const here = dirname(fileURLToPath(import.meta.url));

// What is wrong.
export const complaints = [];

// Has TypeScript check a text. A literal with its type is checked for fields that do not exist.
export function checkTypes(name, text) {
  // Several checks run at once.
  const source = join(here, `${name}-${process.pid}.ts`);
  writeFileSync(source, text);
  const tsc = join(here, "node_modules/typescript/bin/tsc");
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"];
  try {
    execFileSync(process.execPath, [tsc, ...options, source], { cwd: here, encoding: "utf8" });
  } catch (error) {
    complaints.push(error.stdout);
  } finally {
    unlinkSync(source);
  }
}

// Prints what is wrong, and exits with 1 then.
export function conclude() {
  if (complaints.length === 0) return;
  console.log(complaints.join("\n"));
  process.exit(1);
}
