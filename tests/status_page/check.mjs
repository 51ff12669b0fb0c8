// node check.mjs URL VERDICT: whether the page is valid HTML, whether axe finds barriers in it, whether it fits screens from 320 to
// 1600 pixels, and whether it asks for anything else than itself. Says what is wrong, and exits with 1 then.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { HtmlValidate } from "html-validate";
import { withPage } from "./browser.mjs";

const [url, verdict] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const complaints = [];

const html = await (await fetch(url)).text();
const validator = new HtmlValidate({ extends: ["html-validate:recommended"] });
for (const { messages } of (await validator.validateString(html)).results) {
  for (const { line, column, ruleId, message } of messages) complaints.push(`html ${line}:${column} ${ruleId}: ${message}`);
}

const unfolded = "document.querySelectorAll('details').forEach((details) => { details.open = true; })";
const ofTheText = complaints.length;
await withPage(async (page) => {
  complaints.length = ofTheText;
  for (const scheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      await page.look(width, scheme);
      await page.goto(url);
      await page.evaluate(unfolded);
      await page.evaluate(axe);
      const { violations, passes } = await page.evaluate("axe.run()");
      if (passes.length < 20) complaints.push(`axe looked at ${passes.length} things only`);
      for (const { id, nodes } of violations) {
        for (const { target, failureSummary } of nodes) {
          complaints.push(`axe, ${scheme}, ${width}: ${id} at ${target}: ${failureSummary.replace(/\s+/g, " ")}`);
        }
      }
    }
  }
  for (const width of [320, 390, 480, 768, 1024, 1120, 1280, 1600]) {
    await page.look(width, "light");
    await page.goto(url);
    await page.evaluate(unfolded);
    const wide = await page.evaluate("document.documentElement.scrollWidth");
    if (wide > width) complaints.push(`${wide} pixels wide on a screen of ${width}`);
  }
  const shown = await page.evaluate("document.getElementById('verdict').className");
  if (shown !== `verdict ${verdict}`) complaints.push(`the verdict is ${shown}`);
  const requested = page.requested.filter((requested) => requested !== url && !requested.startsWith("data:image/svg+xml"));
  complaints.push(...requested.map((requested) => `requested ${requested}`), ...page.complaints);
});
for (const complaint of complaints) console.log(complaint);
process.exitCode = complaints.length ? 1 : 0;
