// What `mindgen batch compare --json` has written: its figures, and the pairs that differ most side by side.

import { make } from "./dom.js";

const SCHEMA = "mindgen.batch.compare/1";
const MOST_BYTES = 64 * 2 ** 20;
const MOST_PAIRS = 500;

export class CompareView {
  #language;

  constructor(element, language) {
    this.#language = language;
    this.input = make("input", { id: "compare-file", type: "file", accept: ".json,application/json", class: "hidden" });
    this.input.addEventListener("change", () => this.input.files[0] && this.open(this.input.files[0]));
    const choose = language.put(make("label", { for: "compare-file", class: "button primary" }), "compare_choose");
    const drop = make("div", { class: "drop" }, this.input, choose, language.put(make("span", { class: "faint" }), "compare_drop"));
    drop.addEventListener("dragover", (event) => event.preventDefault());
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.open(event.dataTransfer.files[0]);
    });
    this.status = make("p", { class: "status bad", role: "status" });
    this.result = make("div", { class: "comparison" });
    const title = language.put(make("h2"), "compare_title");
    const note = language.put(make("p", { class: "faint" }), "compare_note");
    element.append(make("div", { class: "card" }, title, note, drop, this.status), this.result);
  }

  async open(file) {
    this.#language.clear(this.status);
    this.result.replaceChildren();
    if (file.size > MOST_BYTES) {
      this.#language.put(this.status, "compare_large", { name: file.name });
      return;
    }
    try {
      const found = JSON.parse(await file.text());
      if (found.schema !== SCHEMA) throw new TypeError("another schema");
      this.result.replaceChildren(this.#figures(found), this.#pairs(found));
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
      this.#language.put(this.status, "compare_bad", { name: file.name });
    }
    this.input.value = "";
  }

  #figures(found) {
    const failed = found.failed_both + found.failed_only_a + found.failed_only_b;
    const tiles = [
      ["compare_pairs", this.#language.number(found.pairs)],
      ["compare_same", this.#rate(found.identical)],
      ["compare_finish", this.#rate(found.finish_changed)],
      ["compare_failed", this.#language.number(failed)],
    ].map(([key, value]) => make("dl", { class: "tile" }, this.#language.put(make("dt"), key), make("dd", {}, value)));
    const paths = make("p", { class: "paths" }, side("a"), ` ${found.a.path}`, make("br"), side("b"), ` ${found.b.path}`);
    return make("div", { class: "card" }, paths, make("div", { class: "tiles" }, ...tiles), this.#differences(found));
  }

  #rate({ count, of, rate }) {
    return of ? `${this.#language.percent(rate)} (${this.#language.number(count)})` : "–";
  }

  #differences({ differences }) {
    if (!differences.length) return "";
    const headings = ["name", "compare_pairs", "a", "b", "b − a", "compare_interval"].map((key, place) => {
      const heading = make("th", { scope: "col", class: place ? "number" : "" });
      return key.includes("_") || key === "name" ? this.#language.put(heading, key) : (heading.append(key), heading);
    });
    const rows = differences.map((each) => {
      const values = [each.mean_a, each.mean_b, each.mean].map((value) => this.#figure(value));
      const interval = `${this.#figure(each.low)} … ${this.#figure(each.high)}`;
      const cells = [this.#language.number(each.pairs), ...values, interval];
      return make("tr", {}, make("th", { scope: "row" }, each.name), ...cells.map((cell) => make("td", { class: "number" }, cell)));
    });
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...headings)), make("tbody", {}, ...rows));
    const wide = make("div", { class: "wide", role: "region", tabindex: "0" }, table);
    this.#language.label(wide, "compare_differences");
    return make("div", {}, this.#language.put(make("h3"), "compare_differences"), wide);
  }

  #figure(value) {
    return value === null ? "–" : this.#language.number(value, 3);
  }

  #pairs({ most_different: pairs }) {
    const title = this.#language.put(make("h2"), pairs.length ? "compare_shown" : "compare_none", { n: pairs.length });
    return make("div", { class: "pairs" }, title, ...pairs.slice(0, MOST_PAIRS).map((pair) => this.#pair(pair)));
  }

  #pair(pair) {
    const key = make("code", { class: "chip" }, `${[pair.key].flat().join(", ")} · ${pair.sample}`);
    const prompt = make("p", { class: "pair-prompt" }, pair.prompt ?? "");
    const sides = ["a", "b"].map((name) => this.#side(name, pair[name]));
    return make("article", { class: "card" }, key, prompt, make("div", { class: "sides" }, ...sides));
  }

  #side(name, { pieces, finish_reason: finish, scores }) {
    const text = make("p", { class: "answer" });
    for (const piece of pieces) {
      text.append(piece.differs ? make("mark", { class: "differs" }, piece.text) : piece.text);
    }
    const facts = [finish, ...Object.entries(scores ?? {}).map(([key, value]) => `${key} ${value}`)];
    return make("div", {}, side(name), text, make("p", { class: "faint" }, facts.filter(Boolean).join(" · ")));
  }
}

const side = (name) => make("b", { class: `side side-${name}` }, name);
