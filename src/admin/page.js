
"use strict";
// Replaces the content every few seconds and draws the chart. Without this script, the tables have the same numbers.
const SVG = "http://www.w3.org/2000/svg";
const EVERY = 5000;

function draw(cell, row, status) {
  const height = 30;
  const most = Math.max(1, ...row.steps);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${status.width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const title = document.createElementNS(SVG, "title");
  title.textContent = `${row.words}: at most ${most} in ${status.step_seconds} seconds`;
  svg.append(title);
  const bar = (x, width, tall, faint) => {
    const rect = document.createElementNS(SVG, "rect");
    const shape = { x, y: height - tall, width, height: tall, opacity: faint ? 0.25 : 1 };
    for (const [name, value] of Object.entries(shape)) rect.setAttribute(name, value);
    svg.append(rect);
  };
  bar(0, status.width, 0.6, true);
  const first = status.width - row.steps.length;
  row.steps.forEach((count, index) => {
    if (count > 0) bar(first + index, 0.85, Math.max(2, (height * count) / most), false);
  });
  cell.replaceChildren(svg);
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(EVERY) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
}

async function refresh(again) {
  try {
    if (again) {
      const text = await (await ask("/")).text();
      const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
      document.getElementById("live").replaceChildren(...fresh.childNodes);
    }
    const status = await (await ask("/status.json")).json();
    const rows = new Map(status.rows.map((row) => [row.key, row]));
    for (const cell of document.querySelectorAll("[data-key]")) {
      const row = rows.get(cell.dataset.key);
      if (row) draw(cell, row, status);
    }
    document.documentElement.className = "drawn";
    document.getElementById("silent").hidden = true;
  } catch {
    document.documentElement.classList.add("stale");
    document.getElementById("silent").hidden = false;
  }
  setTimeout(() => refresh(true), EVERY);
}

refresh(false);
