// What is known of a token, beside it: how likely it was, and what else was.

import { make } from "./dom.js";

const GAP = 6; // pixels

export class Tip {
  #element;
  #language;
  #described = null;

  constructor(element, language) {
    this.#element = element;
    this.#language = language;
    addEventListener("scroll", () => this.hide(), { passive: true, capture: true });
  }

  show(target, tokens) {
    this.hide();
    this.#element.replaceChildren(...tokens.flatMap((token) => this.#parts(token)));
    this.#element.hidden = false;
    target.setAttribute("aria-describedby", this.#element.id);
    this.#described = target;
    this.#place(target.getClientRects()[0] ?? target.getBoundingClientRect());
  }

  hide() {
    this.#element.hidden = true;
    this.#described?.removeAttribute("aria-describedby");
    this.#described = null;
  }

  #place(box) {
    const { offsetWidth: width, offsetHeight: height } = this.#element;
    const below = box.bottom + GAP;
    const top = below + height > innerHeight && box.top > height + GAP ? box.top - GAP - height : below;
    const left = Math.max(GAP, Math.min(box.left, document.documentElement.clientWidth - width - GAP));
    this.#element.style.top = `${top}px`;
    this.#element.style.left = `${left}px`;
  }

  #parts(token) {
    const head = make("p", { class: "tip-head" }, make("code", {}, visible(token.text)));
    head.append(" ", make("b", {}, this.#language.percent(Math.exp(token.logprob))));
    const rows = token.alternatives.map(({ text, logprob }) => {
      const share = Math.exp(logprob);
      const bar = make("span", { class: "tip-bar" });
      bar.style.width = `${Math.max(share * 100, 1)}%`;
      const row = make("li", text === token.text ? { class: "chosen" } : {});
      row.append(make("code", {}, visible(text)), make("span", { class: "tip-track" }, bar));
      row.append(make("span", { class: "number" }, this.#language.percent(share)));
      return row;
    });
    const title = make("p", { class: "faint" }, this.#language.text("tip_others"));
    return rows.length ? [head, title, make("ul", {}, ...rows)] : [head];
  }
}

/** With its spaces and line ends to be seen. */
function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}
