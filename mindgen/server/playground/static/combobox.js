// A text field that chooses one of many names: ARIA's combobox with a listbox.

import { make } from "./dom.js";

const MOST_SHOWN = 60; // of thousands that match; more typing finds the others

export class Combobox {
  #id;
  #language;
  #names;
  #onPick;
  #active = -1;
  #options = [];

  /** `names()` gives what there is now: a list of { name, note }. */
  constructor({ id, language, names, value, onPick }) {
    this.#id = id;
    this.#language = language;
    this.#names = names;
    this.#onPick = onPick;
    this.value = value;
    this.input = make("input", {
      id, role: "combobox", type: "text", autocomplete: "off", spellcheck: "false",
      "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": `${id}-list`,
      on: {
        focus: () => this.input.select(),
        click: () => this.#open(this.#typed),
        input: () => this.#open(this.input.value),
        keydown: (event) => this.#onKey(event),
        blur: () => this.#leave(),
      },
    });
    this.input.value = value;
    this.list = make("ul", { id: `${id}-list`, role: "listbox", class: "options", hidden: true });
    language.label(this.list, "models_found");
    this.list.addEventListener("mousedown", (event) => this.#onMouse(event));
    this.more = make("p", { class: "more faint", hidden: true });
    this.popup = make("div", { class: "popup", hidden: true }, this.list, this.more);
    this.popup.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
    this.element = make("div", { class: "combobox" }, this.input, this.popup);
  }

  get isOpen() {
    return !this.popup.hidden;
  }

  /** Takes the name that the list marks for what is typed; where there is none, shows that, and returns false. */
  settle() {
    if (!this.isOpen && this.#typed) this.#open(this.#typed);
    if (this.isOpen) this.#pick(this.#active);
    return !this.#typed;
  }

  /** What is in the field and not taken yet. */
  get #typed() {
    return this.input.value === this.value ? "" : this.input.value.trim();
  }

  #open(query) {
    const wanted = query.trim().toLowerCase();
    const all = this.#names();
    const found = wanted ? all.filter(({ name }) => name.toLowerCase().includes(wanted)) : all;
    found.sort((a, b) => rank(a.name, wanted) - rank(b.name, wanted));
    this.#options = found.slice(0, MOST_SHOWN).map((each) => each.name);
    this.list.replaceChildren(...found.slice(0, MOST_SHOWN).map((each, place) => this.#option(each, place)));
    const numMore = found.length - this.#options.length;
    this.more.hidden = found.length > 0 && numMore === 0;
    if (found.length === 0) this.#language.put(this.more, "no_match");
    else this.#language.put(this.more, "more_matches", { n: numMore });
    this.list.hidden = found.length === 0;
    this.popup.hidden = false;
    this.input.setAttribute("aria-expanded", String(found.length > 0));
    this.input.setAttribute("aria-invalid", String(wanted !== "" && found.length === 0));
    this.#activate(wanted ? 0 : Math.max(0, this.#options.indexOf(this.value)));
  }

  #option({ name, note }, place) {
    const option = make("li", { id: `${this.#id}-${place}`, role: "option", "aria-selected": "false" });
    option.append(make("span", { class: "option-name" }, name), make("span", { class: "note" }, note));
    return option;
  }

  #activate(place) {
    this.list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = this.#options.length ? Math.min(Math.max(place, 0), this.#options.length - 1) : -1;
    const option = this.list.children[this.#active];
    if (!option) {
      this.input.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", option.id);
  }

  #hide() {
    this.popup.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  #close() {
    this.#hide();
    this.input.setAttribute("aria-invalid", "false");
    this.input.value = this.value;
  }

  #pick(place) {
    if (place < 0) return;
    this.value = this.#options[place];
    this.#close();
    this.#onPick(this.value);
  }

  /** What is typed counts, though nobody pressed Enter; what is no name stays to be seen. */
  #leave() {
    if (!this.#typed) this.#close();
    else if (this.isOpen && this.#active >= 0) this.#pick(this.#active);
    else this.#hide();
  }

  #onMouse(event) {
    const option = event.target.closest("[role=option]");
    if (option) this.#pick([...this.list.children].indexOf(option));
  }

  #onKey(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) {
      if (this.isOpen) this.#activate(this.#active + steps[event.key]);
      else this.#open(this.#typed);
    } else if (event.key === "Enter" && this.isOpen && !event.ctrlKey && !event.metaKey) {
      this.#pick(this.#active);
    } else if (event.key === "Escape" && (this.isOpen || this.#typed)) {
      this.#close();
      this.input.select();
    } else {
      if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) event.preventDefault();
      return;
    }
    event.preventDefault();
  }
}

/** Whole names first, then beginnings, then the rest, each in its order. */
function rank(name, wanted) {
  const lower = name.toLowerCase();
  return !wanted || lower === wanted ? 0 : lower.startsWith(wanted) ? 1 : 2;
}
