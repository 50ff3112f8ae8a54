// All adapters: what they are, where they are, what they have done; and for an admin, loading and unloading.

import { AdapterRow } from "./adapter_row.js";
import { ApiError } from "./api.js";
import { make } from "./dom.js";

const MOST_ROWS = 200;
const COLUMNS = ["name", "digest", "state", "requests", "tokens_column", "open_column"];

export class AdaptersView {
  #page;
  #overview = null;
  #rows = new Map(); // those that are shown, by name

  /** `page` has api, language and refresh(), which reads the overview anew; `onTry` gets a name. */
  constructor(element, page, onTry) {
    this.#page = page;
    this.onTry = onTry;
    const { language } = page;
    this.search = make("input", { id: "adapter-search", type: "search", on: { input: () => this.#draw() } });
    language.label(this.search, "adapters_search");
    this.search.dataset.placeholder = "adapters_search";
    this.count = make("p", { class: "faint", role: "status" });
    const headings = COLUMNS.map((key) =>
      language.put(make("th", { scope: "col", class: isNumber(key) ? "number" : "" }), key),
    );
    this.body = make("tbody");
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...headings, make("td"))), this.body);
    this.note = make("p", { class: "faint empty" });
    this.region = make("div", { class: "wide", role: "region", tabindex: "0" }, table);
    language.label(this.region, "adapters_title");
    const title = language.put(make("h2"), "adapters_title");
    const head = make("div", { class: "row spread" }, make("div", { class: "row" }, title, this.count), this.search);
    this.status = make("p", { class: "status", role: "status" });
    element.append(make("div", { class: "card" }, head, this.region, this.note, this.status), this.#loadForm());
  }

  show(overview) {
    this.#overview = overview;
    this.fields.disabled = !overview.can_change;
    this.#page.language.put(this.loadNote, overview.can_change ? "load_key" : "load_off");
    this.#draw();
  }

  #loadForm() {
    const { language } = this.#page;
    const field = (id, key) => {
      const input = make("input", { id, type: "text", required: true, autocomplete: "off", spellcheck: "false" });
      const label = language.put(make("label", { for: id }), key);
      return [input, make("div", { class: "field" }, label, input)];
    };
    const [name, nameField] = field("load-name", "name");
    const [path, pathField] = field("load-path", "load_path");
    const replace = make("input", { type: "checkbox" });
    const replaceLabel = make("label", { class: "check" }, replace, language.put(make("span"), "load_replace"));
    this.loadNote = make("p", { class: "faint" });
    const button = language.put(make("button", { class: "primary" }), "load");
    this.fields = make("fieldset", { class: "plain" }, nameField, pathField, replaceLabel, button);
    const submit = (event) => {
      event.preventDefault();
      const body = { lora_name: name.value, lora_path: path.value, load_inplace: replace.checked };
      this.#change("load", name.value, body);
    };
    const title = language.put(make("h2"), "load_title");
    return make("form", { class: "card", id: "load-form", on: { submit } }, title, this.loadNote, this.fields);
  }

  async #change(kind, name, body) {
    const { api, language, refresh } = this.#page;
    language.put(this.status, kind === "load" ? "loading" : "unloading", { name });
    this.status.classList.remove("bad");
    try {
      await api.text(`v1/${kind}_lora_adapter`, body);
      language.put(this.status, kind === "load" ? "loaded" : "unloaded", { name });
      await refresh();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      language.clear(this.status);
      this.status.textContent = error.shownIn(language);
      this.status.classList.add("bad");
    }
  }

  #draw() {
    if (!this.#overview) return; // the server has not said yet what there is
    const { language } = this.#page;
    const { adapters } = this.#overview;
    const wanted = this.search.value.trim().toLowerCase();
    const found = adapters.filter(({ name }) => name.toLowerCase().includes(wanted));
    this.#place(found.slice(0, MOST_ROWS));
    const counts = { n: found.length, of: adapters.length };
    language.put(this.count, wanted ? "adapters_found" : "adapters_count", counts);
    if (!adapters.length) language.put(this.note, "adapters_none");
    else if (!found.length) language.put(this.note, "adapters_no_match");
    else if (found.length > MOST_ROWS) language.put(this.note, "adapters_first", { n: MOST_ROWS });
    else language.clear(this.note);
  }

  /** Leaves the rows that are in their place where they are: one that is put anew loses the focus. */
  #place(adapters) {
    const gone = new Set(this.#rows.keys());
    for (const { name } of adapters) gone.delete(name);
    for (const name of gone) {
      const { element } = this.#rows.get(name);
      if (element.contains(document.activeElement)) this.region.focus();
      element.remove();
      this.#rows.delete(name);
    }
    adapters.forEach((adapter, place) => {
      const row = this.#row(adapter.name);
      row.show(adapter, this.#overview.can_change);
      const there = this.body.children[place];
      if (there !== row.element) this.body.insertBefore(row.element, there ?? null);
    });
  }

  #row(name) {
    const found = this.#rows.get(name);
    if (found) return found;
    const row = new AdapterRow(name, this.#page.language, {
      onTry: this.onTry,
      onUnload: () => this.#change("unload", name, { lora_name: name }),
    });
    this.#rows.set(name, row);
    return row;
  }
}

const isNumber = (key) => ["requests", "tokens_column", "open_column"].includes(key);
