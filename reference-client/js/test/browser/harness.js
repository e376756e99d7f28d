// Real processes for the browser tests: the server's program and Chromium profiles. Programs and the page's files are
// found by variables that `cargo xtask test` sets: GOSYNC_SERVER, GOSYNC_SITE, CHROME.

import { chromium } from "playwright-core";
import { folder, PATIENCE_MS, Server as Program, variable } from "../server.js";

export { folder as profile };

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The server's program, which serves the demo's page as well. */
export class Server extends Program {
  static create(t) {
    return super.create(t, "--static", variable("GOSYNC_SITE"));
  }
}

/** A browser with a profile of its own, as another person would have; or with the given one. */
export async function browser(t, place) {
  place ??= await folder(t, () => context.close());
  const context = await chromium.launchPersistentContext(place, {
    executablePath: variable("CHROME"),
    headless: true,
    args: FLAGS,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  return context;
}

/** The demo's page in a tab, with the words a test needs. */
export class Page {
  constructor(tab) {
    this.tab = tab;
  }

  static async open(context, url) {
    const tab = await context.newPage();
    tab.on("pageerror", error => console.error("page:", error));
    tab.on("console", message => {
      if (message.type() === "error" && !message.text().includes("ERR_")) console.error("page:", message.text());
    });
    const page = new Page(tab);
    await tab.goto(url);
    await page.ready();
    return page;
  }

  /** The list was read from the store. */
  async ready() {
    await this.tab.locator("body[data-ready=true]").waitFor();
  }

  /** The page can be reloaded without its server. */
  async kept() {
    await this.tab.locator("body[data-kept=true]").waitFor();
  }

  async reload() {
    await this.tab.reload();
    await this.ready();
  }

  async add(...titles) {
    for (const title of titles) {
      await this.tab.getByPlaceholder("What needs to be done?").fill(title);
      await this.tab.getByRole("button", { name: "Add" }).click();
      await this.item(title).waitFor();
    }
  }

  item(title) {
    return this.tab.locator("#todos li", { has: this.tab.locator(`.delete[aria-label="Delete ${title}"]`) });
  }

  async tick(title) {
    await this.item(title).getByRole("checkbox").click();
  }

  async edit(title, to) {
    const text = this.item(title).locator(".text");
    await text.fill(to);
    await text.press("Enter");
    await this.item(to).waitFor();
  }

  async delete(title) {
    await this.item(title).locator(".delete").click();
    await this.item(title).waitFor({ state: "detached" });
  }

  /** The list as `[ ] Milk` and `[x] Bread`, in its order. */
  todos() {
    return this.tab.evaluate(() =>
      [...document.querySelectorAll("#todos li")].map(item => {
        const [tick, text] = item.querySelectorAll("input");
        return `[${tick.checked ? "x" : " "}] ${text.value}`;
      }),
    );
  }

  /** Waits until the list reads like this. */
  async shows(...wanted) {
    await this.until("the list", () => this.todos(), found => String(found) === String(wanted), wanted);
  }

  /** Waits until the status pill says so: online, offline, … */
  async is(state) {
    const colour = state === "online" ? "🟢" : "🔴";
    await this.tab.locator(`#status[data-state=${state}] #state:text("${colour}")`).waitFor();
  }

  /** Waits until this many writes are pending. */
  async pending(count) {
    const read = async () => {
      const pill = this.tab.locator("#pending");
      return (await pill.isVisible()) ? Number.parseInt(await pill.textContent()) : 0;
    };
    await this.until("pending writes", read, found => found === count, count);
  }

  /** Waits until this device knows that it holds what the server holds. */
  async verified() {
    await this.tab.locator("#verified").waitFor({ state: "visible" });
  }

  /** What the page told, newest first. */
  log() {
    return this.tab.locator("#log li span").allTextContents();
  }

  /** Waits until some line of the log matches. */
  async logs(pattern) {
    await this.until("the log", () => this.log(), lines => lines.some(line => pattern.test(line)), pattern);
  }

  async until(what, read, done, wanted) {
    const end = Date.now() + PATIENCE_MS;
    let found = await read();
    while (!done(found)) {
      if (Date.now() > end) throw new Error(`${what}: wanted ${wanted}, found ${found}`);
      await this.tab.evaluate(() => new Promise(requestAnimationFrame));
      found = await read();
    }
  }
}
