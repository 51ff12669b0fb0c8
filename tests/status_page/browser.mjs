// A Chromium without a window, driven by the DevTools protocol. It can resolve no name outside of this machine.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import WebSocket from "ws";

const OPTIONS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/// How long a browser has to say where it can be driven. Some starts never do.
const START_MS = 20_000;

/// How long it has to answer, or to load a page. Some browsers stop to answer on a busy machine.
const ANSWER_MS = 20_000;

/// The browser does not answer.
class Hangs extends Error {}

/// Starts a browser. `undefined` if it does not say in time where it can be driven.
async function start(profile) {
  const process = spawn("chromium", [...OPTIONS, `--user-data-dir=${profile}`, "about:blank"], {
    env: { ...globalThis.process.env, HOME: profile },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = new Promise((resolve) => process.on("exit", resolve));
  const address = await new Promise((resolve, reject) => {
    let said = "";
    process.stderr.on("data", (data) => {
      said += data;
      const found = said.match(/DevTools listening on (ws:\S+)/);
      if (found) resolve(found[1]);
    });
    process.on("error", reject);
    process.on("exit", () => reject(new Error(`Chromium has ended: ${said}`)));
    setTimeout(resolve, START_MS).unref();
  });
  const stop = async () => {
    process.kill("SIGKILL");
    await ended;
  };
  if (address) return { address, stop };
  await stop();
}

/// Runs `work` with a page, and ends the browser. Once more from the beginning, with another browser, if one does not answer.
export async function withPage(work) {
  for (let attempts = 3; ; attempts--) {
    try {
      return await withOnePage(work);
    } catch (error) {
      if (!(error instanceof Hangs) || attempts === 1) throw error;
      console.error(`another browser, because of this one: ${error.message}`);
    }
  }
}

async function withOnePage(work) {
  const profile = mkdtempSync(join(tmpdir(), "doorward-page-"));
  const browser = (await start(profile)) ?? (await start(profile));
  if (!browser) throw new Error("Chromium did not start, twice");
  try {
    const socket = new WebSocket(browser.address);
    await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
    const page = await Page.open(socket);
    const result = await work(page);
    socket.close();
    return result;
  } finally {
    await browser.stop();
    rmSync(profile, { recursive: true, force: true, maxRetries: 50 });
  }
}

class Page {
  /// What the console said, and requests that were blocked or failed.
  complaints = [];
  /// The addresses that were requested.
  requested = [];
  #socket;
  #session;
  #next = 1;
  #waiting = new Map();
  #listeners = [];

  static async open(socket) {
    const page = new Page();
    page.#socket = socket;
    socket.on("message", (text) => page.#receive(JSON.parse(text)));
    const { targetId } = await page.send("Target.createTarget", { url: "about:blank" });
    ({ sessionId: page.#session } = await page.send("Target.attachToTarget", { targetId, flatten: true }));
    for (const part of ["Page", "Runtime", "Log", "Network"]) await page.send(`${part}.enable`);
    return page;
  }

  #receive(message) {
    const { id, method, params } = message;
    if (id) {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      return message.error ? reject(new Error(JSON.stringify(message.error))) : resolve(message.result);
    }
    if (method === "Log.entryAdded") this.complaints.push(params.entry.text);
    if (method === "Runtime.consoleAPICalled") this.complaints.push(params.args.map((arg) => arg.value).join(" "));
    if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.text);
    if (method === "Network.requestWillBeSent") this.requested.push(params.request.url);
    this.#listeners = this.#listeners.filter(([name, resolve]) => name !== method || void resolve(params));
  }

  send(method, params = {}) {
    const id = this.#next++;
    const message = { id, method, params, sessionId: this.#session };
    return new Promise((resolve, reject) => {
      setTimeout(() => reject(new Hangs(`no answer to ${method}`)), ANSWER_MS).unref();
      this.#waiting.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify(message));
    });
  }

  /// Waits for the next event of this name.
  event(name) {
    return new Promise((resolve, reject) => {
      setTimeout(() => reject(new Hangs(`no ${name}`)), ANSWER_MS).unref();
      this.#listeners.push([name, resolve]);
    });
  }

  /// As on a screen so wide, in a colour scheme.
  async look(width, scheme, height = 900, deviceScaleFactor = width < 500 ? 2 : 1) {
    const metrics = { width, height, deviceScaleFactor, mobile: width < 500 };
    await this.send("Emulation.setDeviceMetricsOverride", metrics);
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }

  async goto(url) {
    const loaded = this.event("Page.loadEventFired");
    // If the navigation fails, that is the error.
    loaded.catch(() => {});
    await this.send("Page.navigate", { url });
    await loaded;
  }

  /// The value of an expression, which may be a promise.
  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression, awaitPromise: true, returnByValue: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /// A picture of the whole page.
  async picture() {
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
    return Buffer.from(data, "base64");
  }
}
