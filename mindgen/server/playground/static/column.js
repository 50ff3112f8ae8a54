// One model's column: which one it is, what it answers, and how fast.

import { Combobox } from "./combobox.js";
import { make } from "./dom.js";
import { Answer, bodyOf, generate, piecesOf } from "./generation.js";
import { TokenText } from "./token_text.js";

export class Column {
  #page;
  #turns = []; // of the conversation so far
  #frame = 0;
  #answer = null;
  hasForgotten = false; // what was said last, for nothing answered it

  /** `page` has api, language, tip and models(); `onChange` is called when another model is chosen. */
  constructor(page, id, model, { onChange, onRemove, onProgress }) {
    this.#page = page;
    this.onProgress = onProgress;
    const { language } = page;
    this.text = new TokenText(language, page.tip);
    this.combobox = new Combobox({ id, language, names: page.models, value: model, onPick: onChange });
    this.remove = make("button", { type: "button", class: "quiet icon-only remove", on: { click: () => onRemove(this) } }, "×");
    this.turns = make("div", { class: "turns" });
    this.empty = language.put(make("p", { class: "faint empty" }), "answer_empty");
    this.error = make("p", { class: "error", hidden: true });
    this.body = make("div", { class: "column-body" }, this.turns, this.empty, this.text.element, this.error);
    this.facts = make("dl", { class: "facts" });
    this.difference = make("p", { class: "difference" });
    this.title = make("h2", { class: "hidden" });
    const head = make("div", { class: "column-head" }, this.title, this.combobox.element, this.remove);
    this.element = make("section", { class: "column card" }, head, this.body, this.difference, this.facts);
    this.clear();
  }

  get model() {
    return this.combobox.value;
  }

  /** Its place, from 1; only one of several can be removed. */
  set place(number) {
    const { language } = this.#page;
    language.put(this.title, "column", { n: number });
    language.label(this.combobox.input, "model_of", { n: number });
    language.label(this.remove, "remove_column", { n: number });
  }

  clear() {
    this.#turns = [];
    this.#answer = null;
    this.turns.replaceChildren();
    this.#begin();
  }

  /** Answers; returns whether it did so without an error. */
  async run(state, signal) {
    const { api, language } = this.#page;
    const messages = this.#messages(state);
    this.#begin();
    this.hasForgotten = false;
    this.empty.hidden = true;
    this.element.setAttribute("aria-busy", "true");
    const answer = (this.#answer = new Answer());
    try {
      await generate(api, bodyOf(this.model, state, messages), answer, () => this.#drawSoon(), signal);
    } catch (error) {
      if (!answer.text) this.#forget(state);
      if (error.name === "AbortError") answer.finish = "aborted";
      else this.#fail(error.shownIn?.(language) ?? String(error)); // whatever a proxy makes of a stream
    } finally {
      this.element.removeAttribute("aria-busy");
      this.#draw();
    }
    return this.error.hidden;
  }

  /** Marks what column 1 has not. */
  compareWith(first, differing) {
    const { language } = this.#page;
    const isCompared = first !== this && this.text.numPieces > 0 && first.text.numPieces > 0;
    const places = isCompared ? differing(first.text.texts, this.text.texts) : new Set();
    this.text.mark(places);
    this.difference.classList.toggle("is-same", isCompared && places.size === 0);
    if (!isCompared) language.clear(this.difference);
    else if (places.size === 0) language.put(this.difference, "same");
    else language.put(this.difference, "differs", { n: places.size, of: this.text.numPieces });
  }

  #begin() {
    this.text.show([]);
    this.error.hidden = true;
    this.empty.hidden = this.#turns.length > 0;
    this.facts.replaceChildren();
    this.#page.language.clear(this.difference);
  }

  /** What was not answered was not said. */
  #forget(state) {
    if (state.mode !== "chat") return;
    this.hasForgotten = true;
    this.#turns.pop();
    this.turns.lastChild.remove();
  }

  #fail(message) {
    this.error.textContent = message;
    this.error.hidden = false;
  }

  /** The conversation with what is said now; in it are the answers of whichever model gave them. */
  #messages(state) {
    if (state.mode !== "chat") {
      this.#turns = [];
      this.turns.replaceChildren();
      return null;
    }
    if (this.#answer?.text) {
      this.#turns.push({ role: "assistant", content: this.#answer.text });
      this.turns.append(make("p", { class: "turn" }, this.#answer.text));
    }
    this.#turns.push({ role: "user", content: state.prompt });
    this.turns.append(make("p", { class: "turn mine" }, state.prompt));
    const system = state.system ? [{ role: "system", content: state.system }] : [];
    return [...system, ...this.#turns];
  }

  #drawSoon() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const { language } = this.#page;
    this.text.show(piecesOf(this.#answer));
    language.label(this.text.element, "answer_of", { name: this.model });
    this.#showFacts(this.#answer);
    this.onProgress();
  }

  #showFacts(answer) {
    const { language } = this.#page;
    const ends = { stop: "end_stop", length: "end_length", aborted: "end_aborted" };
    const facts = [
      ["first_token", "milliseconds", answer.firstAfter],
      ["speed", "per_second", answer.speed],
      ["length", "tokens", answer.numTokens ?? answer.tokens.length],
      ["ended", ends[answer.finish] ?? "unknown", 0],
    ];
    this.facts.replaceChildren(
      ...facts.map(([name, text, n]) => {
        const value = language.put(make("dd"), n === null ? "unknown" : text, { n: Math.round(n) });
        return make("div", {}, language.put(make("dt"), name), value);
      }),
    );
  }
}
