// An answer's text as tokens that the mouse and the keyboard can ask for their probability.

import { make } from "./dom.js";

export class TokenText {
  #language;
  #tip;
  #pieces = [];

  constructor(language, tip) {
    this.#language = language;
    this.#tip = tip;
    this.element = make("div", {
      class: "answer", role: "group",
      on: {
        mouseover: (event) => this.#show(event.target),
        mouseout: () => this.#tip.hide(),
        focusin: (event) => this.#show(event.target),
        focusout: () => this.#tip.hide(),
        keydown: (event) => this.#onKey(event),
      },
    });
  }

  get numPieces() {
    return this.#pieces.length;
  }

  get texts() {
    return this.#pieces.map((piece) => (piece.isEnd ? null : piece.text));
  }

  /** Draws what has changed. */
  show(pieces) {
    const spans = this.element.children;
    pieces.forEach((piece, place) => {
      const span = spans[place] ?? this.#span();
      const text = piece.isEnd ? this.#language.text("end_token") : piece.text;
      if (span.textContent !== text) span.textContent = text;
      span.classList.toggle("end", piece.isEnd);
    });
    while (spans.length > pieces.length) spans[spans.length - 1].remove();
    if (spans.length && !this.element.querySelector("[tabindex='0']")) spans[0].tabIndex = 0;
    this.#pieces = pieces;
  }

  /** Marks the tokens at these places. */
  mark(places) {
    [...this.element.children].forEach((span, place) => span.classList.toggle("differs", places.has(place)));
  }

  #span() {
    const span = make("span", { class: "token", tabindex: "-1" });
    this.element.append(span);
    return span;
  }

  #show(target) {
    if (!target.classList.contains("token")) return;
    const place = [...this.element.children].indexOf(target);
    const { tokens } = this.#pieces[place] ?? { tokens: [] };
    if (tokens.length) this.#tip.show(target, tokens);
  }

  #onKey(event) {
    const spans = this.element.children;
    const place = [...spans].indexOf(document.activeElement);
    const next = {
      ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: spans.length - 1,
    }[event.key];
    if (event.key === "Escape") this.#tip.hide();
    if (next === undefined || !spans[next]) return;
    event.preventDefault();
    spans[place].tabIndex = -1;
    spans[next].tabIndex = 0;
    spans[next].focus();
  }
}
