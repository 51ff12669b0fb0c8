// node check.mjs BUILT.yaml: prints the documents as JSON. Says what the Prometheus Operator would not take, and exits with 1
// then. The schemas of Kubernetes itself are kubernetes-validate's.

import { execFileSync } from "node:child_process";
import { readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { parseAllDocuments } from "yaml";

const here = dirname(fileURLToPath(import.meta.url));
const complaints = [];
const documents = parseAllDocuments(readFileSync(process.argv[2], "utf8")).map((document) => {
  complaints.push(...document.errors.map((error) => error.message));
  return document.toJS();
});

const model = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
for (const document of documents.filter(({ apiVersion }) => apiVersion.startsWith("monitoring.coreos.com/"))) {
  if (document.kind !== "PodMonitor") complaints.push(`no schema at hand for ${document.kind}`);
  // The patterns of values; this validator takes fields that do not exist.
  try {
    new PodMonitor(document).validate();
  } catch (error) {
    complaints.push(error.message);
  }
  // A literal with its type is checked for fields that do not exist.
  const source = join(here, `podmonitor-${process.pid}.ts`);
  const literal = JSON.stringify(document, null, 2);
  writeFileSync(source, `import type { IPodMonitor } from "${model}";\nexport const it: IPodMonitor = ${literal};\n`);
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

if (complaints.length > 0) {
  console.log(complaints.join("\n"));
  process.exit(1);
}
console.log(JSON.stringify(documents));
