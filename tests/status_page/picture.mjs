// node picture.mjs URL WIDTH SCHEME FILE: a picture of the whole page.

import { writeFileSync } from "node:fs";
import { withPage } from "./browser.mjs";

const [url, width, scheme, file] = process.argv.slice(2);
await withPage(async (page) => {
  await page.look(Number(width), scheme);
  await page.goto(url);
  // The height of the page, so that the picture has no more.
  const height = await page.evaluate("document.documentElement.scrollHeight");
  await page.look(Number(width), scheme, height, 1);
  writeFileSync(file, await page.picture());
});
