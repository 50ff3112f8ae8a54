// Puts the page together: what it asks, of which models, and what it shows.

import { AdaptersView } from "./adapters_view.js";
import { Api } from "./api.js";
import { Column } from "./column.js";
import { CompareView } from "./compare_view.js";
import { differingPlaces } from "./difference.js";
import { byId, shortDigest } from "./dom.js";
import { Language } from "./language.js";
import { LiveView } from "./live_view.js";
import { SamplingForm } from "./sampling.js";
import { FIRST_STATE, MOST_COLUMNS, fromFragment, toFragment } from "./share.js";
import { setUpTabs } from "./tabs.js";
import { setUpTheme } from "./theme.js";
import { Tip } from "./tip.js";

const REFRESH_MILLISECONDS = 5000; // of the adapters, while they are looked at

class Playground {
  #overview = null;
  #columns = [];
  #numMade = 0;
  #running = null;

  constructor() {
    this.api = new Api();
    this.language = new Language();
    this.language.apply(document);
    this.page = {
      api: this.api,
      language: this.language,
      tip: new Tip(byId("tip"), this.language),
      models: () => this.#models(),
      refresh: () => this.refresh(),
    };
    this.sampling = new SamplingForm(byId("sampling-fields"), byId("sampling-summary"), this.language, () => {});
    this.adapters = new AdaptersView(byId("view-adapters"), this.page, (name) => this.#try(name));
    new CompareView(byId("view-compare"), this.language);
    this.showTab = setUpTabs(["generate", "adapters", "compare"], () => this.#refreshQuietly());
    setUpTheme(byId("theme"));
    this.#listen();
    this.language.apply(document);
  }

  async start() {
    await this.#refreshQuietly();
    this.state = fromFragment(location.hash) ?? { ...FIRST_STATE, models: this.#firstModels() };
    new LiveView(byId("live"), this.api, this.language).start();
    setInterval(() => {
      if (document.visibilityState === "visible" && !byId("view-adapters").hidden) this.#refreshQuietly();
    }, REFRESH_MILLISECONDS);
  }

  async refresh() {
    const isFirst = this.#overview === null;
    this.#overview = await this.api.json("playground/overview");
    const { base, digest, version } = this.#overview;
    const name = byId("server-name");
    name.textContent = base;
    name.title = `${shortDigest(digest)} · mindgen ${version}`;
    name.hidden = false;
    this.adapters.show(this.#overview);
    const isUnchosen = this.#columns.length > 0 && this.#columns.every((column) => !column.model);
    if (isFirst && isUnchosen) this.state = { ...this.state, models: this.#firstModels() };
  }

  get state() {
    const mode = document.querySelector("input[name=mode]:checked").value;
    const models = this.#columns.map((column) => column.model);
    return { mode, prompt: byId("prompt").value, system: byId("system").value, models, sampling: this.sampling.values };
  }

  set state({ mode, prompt, system, models, sampling }) {
    document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
    byId("prompt").value = prompt;
    byId("system").value = system;
    this.sampling.values = sampling;
    for (const column of this.#columns.splice(0)) column.element.remove();
    for (const model of models.length ? models : this.#firstModels()) this.#add(model);
    this.#showMode();
  }

  async run() {
    if (this.#running || !this.#canRun()) return;
    const { state } = this;
    const running = (this.#running = new AbortController());
    this.#setRunning(true);
    this.#say("running");
    if (state.mode === "chat") byId("prompt").value = "";
    const asked = [...this.#columns];
    let well;
    try {
      well = await Promise.all(asked.map((column) => column.run(state, running.signal)));
    } finally {
      this.#running = null;
      this.#setRunning(false);
    }
    if (asked.every((column) => column.hasForgotten)) byId("prompt").value ||= state.prompt;
    const numFailed = well.filter((each) => !each).length;
    if (numFailed) this.#say("failed", { n: numFailed, of: well.length });
    else this.#say(running.signal.aborted ? "stopped" : "done");
  }

  /** Where something is wrong, says what, and goes there. */
  #canRun() {
    const unsettled = this.#columns.find((column) => !column.combobox.settle());
    if (unsettled) {
      this.#say("no_such_model", { name: unsettled.combobox.input.value });
      unsettled.combobox.input.focus();
      return false;
    }
    if (!byId("prompt").value.trim()) {
      this.#say("nothing_asked");
      byId("prompt").focus();
      return false;
    }
    this.language.clear(byId("status"));
    return this.sampling.report();
  }

  #models() {
    if (!this.#overview) return [];
    const { base, digest, adapters } = this.#overview;
    const note = `${this.language.text("base")} ${shortDigest(digest).slice(0, 6)}`;
    return [{ name: base, note }, ...adapters.map((each) => ({ name: each.name, note: shortDigest(each.digest).slice(0, 6) }))];
  }

  /** The base model beside an adapter, so that there is something to compare. */
  #firstModels() {
    const names = this.#models().map(({ name }) => name);
    return names.length ? names.slice(0, 2) : [""];
  }

  #add(model) {
    this.#numMade += 1;
    const column = new Column(this.page, `model-${this.#numMade}`, model, {
      onChange: () => {},
      onRemove: (each) => this.#remove(each),
      onProgress: () => this.#compare(),
    });
    this.#columns.push(column);
    byId("columns").append(column.element);
    this.#number();
    return column;
  }

  #remove(column) {
    this.#columns.splice(this.#columns.indexOf(column), 1);
    column.element.remove();
    this.#number();
    this.#compare();
    this.#columns[0].combobox.input.focus();
  }

  #number() {
    this.#columns.forEach((column, place) => {
      column.place = place + 1;
      column.remove.hidden = this.#columns.length === 1;
      column.remove.disabled = this.#running !== null;
    });
    byId("columns").dataset.count = String(this.#columns.length);
    byId("add-column").hidden = this.#columns.length === MOST_COLUMNS;
  }

  #compare() {
    for (const column of this.#columns) column.compareWith(this.#columns[0], differingPlaces);
  }

  #try(name) {
    const shown = this.#columns.map((column) => column.model);
    if (!shown.includes(name)) {
      if (this.#columns.length === MOST_COLUMNS) this.#remove(this.#columns.at(-1));
      this.#add(name);
    }
    this.showTab("generate");
    byId("prompt").focus();
  }

  #say(key, values = {}) {
    this.language.put(byId("status"), key, values);
  }

  #setRunning(isRunning) {
    byId("run").disabled = isRunning;
    byId("stop").disabled = !isRunning;
    byId("add-column").disabled = isRunning;
    byId("clear").disabled = isRunning;
    for (const each of modes()) each.disabled = isRunning; // another mode clears the columns
    this.#number();
  }

  #showMode() {
    const { mode } = this.state;
    byId("system-field").hidden = mode !== "chat";
    this.language.put(byId("prompt-label"), mode === "chat" ? "message" : "prompt");
    byId("prompt").dataset.placeholder = mode === "chat" ? "message_placeholder" : "prompt_placeholder";
    byId("prompt").placeholder = this.language.text(byId("prompt").dataset.placeholder);
    for (const column of this.#columns) column.clear();
  }

  async #share() {
    history.replaceState(null, "", toFragment(this.state));
    try {
      await navigator.clipboard.writeText(location.href);
      this.#say("shared");
    } catch {
      this.#say("shared_in_bar"); // browsers forbid the clipboard where the page is not secure
    }
  }

  async #refreshQuietly() {
    try {
      await this.refresh();
    } catch (error) {
      byId("status").textContent = error.shownIn?.(this.language) ?? String(error);
    }
  }

  #listen() {
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("view-generate").hidden) this.run();
    });
    byId("stop").addEventListener("click", () => this.#running?.abort());
    byId("share").addEventListener("click", () => this.#share());
    byId("clear").addEventListener("click", () => {
      byId("prompt").value = "";
      this.#showMode();
      this.language.clear(byId("status"));
      byId("prompt").focus();
    });
    byId("add-column").addEventListener("click", () => {
      const shown = this.#columns.map((column) => column.model);
      const names = this.#models().map(({ name }) => name);
      this.#add(names.find((name) => !shown.includes(name)) ?? names[0] ?? "").combobox.input.focus();
    });
    for (const each of modes()) each.addEventListener("change", () => this.#showMode());
    addEventListener("hashchange", () => {
      const state = fromFragment(location.hash);
      if (state && !this.#running) this.state = state;
    });
    byId("language").addEventListener("click", () => this.language.switchTo(this.language.code === "en" ? "zh" : "en"));
    this.#listenToKey();
  }

  #listenToKey() {
    const use = (key) => {
      this.api.key = key;
      byId("key").value = "";
      byId("key-dot").hidden = !key;
      byId("key-menu").open = false;
      this.language.clear(byId("status"));
      this.#refreshQuietly();
    };
    byId("key-dot").hidden = !this.api.key;
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      use(byId("key").value.trim());
    });
    byId("key-forget").addEventListener("click", () => use(""));
    byId("key-menu").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      byId("key-menu").open = false;
      byId("key-menu").querySelector("summary").focus();
    });
  }
}

const modes = () => document.querySelectorAll("input[name=mode]");

new Playground().start();
