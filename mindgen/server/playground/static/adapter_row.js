// One adapter of the table: it changes in place, so that what somebody is at in it stays.

import { make, shortDigest } from "./dom.js";

const NUMBERS = ["requests", "tokens", "open"];

export class AdapterRow {
  #language;
  #isSure = false;

  constructor(name, language, { onTry, onUnload }) {
    this.name = name;
    this.#language = language;
    this.onUnload = onUnload;
    this.digest = make("code");
    this.state = make("span");
    this.numbers = NUMBERS.map(() => make("td", { class: "number" }));
    const attempt = make("button", { type: "button", class: "small", on: { click: () => onTry(name) } });
    language.label(language.put(attempt, "try_it"), "try_name", { name });
    const on = { click: () => this.#unload(), blur: () => this.#ask(false) };
    this.unload = make("button", { type: "button", class: "small", on });
    this.#ask(false);
    this.element = make(
      "tr", {}, make("th", { scope: "row" }, name), make("td", {}, this.digest), make("td", {}, this.state),
      ...this.numbers, make("td", { class: "actions" }, attempt, this.unload),
    );
  }

  show(adapter, canChange) {
    const { digest } = adapter;
    const state = adapter.is_resident ? "resident" : adapter.requests ? "read" : "unused";
    this.digest.title = digest ?? "";
    this.digest.textContent = shortDigest(digest) || "–";
    this.state.className = `state ${state}`;
    this.#language.put(this.state, `state_${state}`);
    NUMBERS.forEach((key, place) => {
      this.numbers[place].textContent = this.#language.number(adapter[key]);
    });
    this.unload.hidden = !canChange;
  }

  #unload() {
    const isSure = this.#isSure;
    this.#ask(!isSure);
    if (isSure) this.onUnload(this.name);
  }

  /** Whether the next click does it; leaving the button takes that back. */
  #ask(isSure) {
    const { name } = this;
    this.#isSure = isSure;
    this.unload.classList.toggle("danger", isSure);
    this.#language.put(this.unload, isSure ? "unload_sure" : "unload");
    this.#language.label(this.unload, isSure ? "unload_sure" : "unload_name", { name });
  }
}
