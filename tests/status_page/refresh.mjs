// node refresh.mjs URL: whether a refresh keeps what a reader has done. Clients have to be refused all the time meanwhile, so that
// the page changes. Says what was lost, and exits with 1 then.

import { withPage } from "./browser.mjs";

const [url] = process.argv.slice(2);
const complaints = [];

await withPage(async (page) => {
  const text = (selector) => page.evaluate(`document.querySelector(${JSON.stringify(selector)}).textContent`);
  const wait = async (what, differs) => {
    for (const end = Date.now() + 60_000; !(await differs()); ) {
      if (Date.now() > end) throw new Error(`${what} did not change`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  const changed = async (selector) => {
    const before = await text(selector);
    await wait(selector, async () => (await text(selector)) !== before);
  };
  const select = (selector) => page.evaluate(`getSelection().selectAllChildren(document.querySelector(${JSON.stringify(selector)}))`);
  const state = () => page.evaluate(`({
    selected: getSelection().toString(), scrolled: scrollY, focused: document.activeElement.tagName,
    open: document.querySelectorAll("details[open]").length, marked: document.querySelectorAll("[data-part]")[3].marked === true,
    title: document.title,
  })`);
  const noise = "#noise summary b";

  await page.look(1280, "light", 500);
  await page.goto(url);
  await page.evaluate(`
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
    document.querySelectorAll("[data-part]")[3].marked = true;
    document.querySelector("#noise summary").focus({ preventScroll: true });
    scrollTo(0, 300)`);
  await select("#impostors td code");
  const before = await state();
  if (before.selected !== "127.0.0.66" || before.scrolled !== 300 || before.open < 1) complaints.push(JSON.stringify(before));
  await changed(noise);
  const after = await state();
  for (const name of Object.keys(before)) {
    if (after[name] !== before[name]) complaints.push(`${name}: ${before[name]} before, ${after[name]} after`);
  }

  // A part in which text is selected waits; the others do not.
  await select(noise);
  const selected = await text(noise);
  await changed("#asof");
  await changed("#asof");
  if ((await text(noise)) !== selected) complaints.push("a selected part was changed");
  if ((await state()).selected !== selected) complaints.push("the selection is lost");
  await page.evaluate("getSelection().removeAllRanges()");
  await wait(noise, async () => (await text(noise)) !== selected);

  // Nothing is asked for while it is paused.
  await page.evaluate("document.getElementById('pause').click()");
  if ((await text("#pause")) !== "Resume") complaints.push(`the button says ${await text("#pause")}`);
  await page.evaluate("document.getElementById('pause').click()");
  await changed("#asof");
  complaints.push(...page.complaints);
});
for (const complaint of complaints) console.log(complaint);
process.exitCode = complaints.length ? 1 : 0;
