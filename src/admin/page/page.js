"use strict";
// Asks for the page every 5 s and changes only the nodes that differ: selection, focus, scroll and open details stay.
(() => {
  if (location.protocol === "file:") return; // A saved copy stays as it is.
  const every = 5000, button = document.getElementById("pause"), stale = document.getElementById("stale");
  const last = {};
  let paused = false;
  const attributes = (old, fresh) => {
    for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  };
  const morph = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType !== 1) { old.data = fresh.data; return; }
    attributes(old, fresh);
    const children = [...old.childNodes], wanted = [...fresh.childNodes];
    wanted.forEach((child, i) => (children[i] ? morph(children[i], child) : old.append(child)));
    children.slice(wanted.length).forEach((child) => child.remove());
  };
  const selected = (part) => { const s = getSelection(); return !s.isCollapsed && s.containsNode(part, true); };
  const refresh = async () => {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(every) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.title = fresh.title;
      attributes(document.getElementById("icon"), fresh.getElementById("icon"));
      for (const part of document.querySelectorAll("[data-part]")) {
        const id = part.id, html = fresh.getElementById(id).outerHTML;
        if (last[id] === html || selected(part)) continue;
        last[id] = html;
        morph(part, fresh.getElementById(id));
      }
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  };
  button.hidden = false;
  button.onclick = () => {
    paused = !paused;
    button.textContent = paused ? "Resume" : "Pause";
    refresh();
  };
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, every);
})();
