// node check.mjs BUILT.yaml: prints the documents as JSON. Says what the Prometheus Operator would not take, and exits with 1
// then. The schemas of Kubernetes itself are kubernetes-validate's.

import { readFileSync } from "node:fs";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { parseAllDocuments } from "yaml";
import { checkTypes, complaints, conclude } from "./typed.mjs";

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
  const literal = JSON.stringify(document, null, 2);
  checkTypes("podmonitor", `import type { IPodMonitor } from "${model}";\nexport const it: IPodMonitor = ${literal};\n`);
}

conclude();
console.log(JSON.stringify(documents));
