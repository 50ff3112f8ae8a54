// The page's language: elements say which text they have, so all of them change at once.

import { ENGLISH } from "./english.js";
import { CHINESE } from "./chinese.js";

const TEXTS = { en: ENGLISH, zh: CHINESE };
const TAGS = { en: "en", zh: "zh-CN" };
const STORED = "mindgen.language";

export class Language {
  constructor() {
    const stored = localStorage.getItem(STORED);
    this.code = stored in TEXTS ? stored : navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  }

  /** The text of that key; {name} in it are values, numbers in the language's own form. */
  text(key, values = {}) {
    return TEXTS[this.code][key].replace(/\{(\w+)\}/g, (_, name) =>
      typeof values[name] === "number" ? this.number(values[name]) : values[name],
    );
  }

  number(value, digits = 0) {
    return new Intl.NumberFormat(TAGS[this.code], { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
  }

  percent(share) {
    const digits = share >= 0.9995 || share < 0.0005 ? 2 : 1;
    return new Intl.NumberFormat(TAGS[this.code], { style: "percent", maximumFractionDigits: digits }).format(share);
  }

  /** Gives an element a text that follows the language; returns the element. */
  put(element, key, values = {}) {
    element.dataset.text = key;
    element.dataset.values = JSON.stringify(values);
    element.textContent = this.text(key, values);
    return element;
  }

  label(element, key, values = {}) {
    element.dataset.label = key;
    element.dataset.labelValues = JSON.stringify(values);
    element.setAttribute("aria-label", this.text(key, values));
    return element;
  }

  /** No text any more. */
  clear(element) {
    delete element.dataset.text;
    element.textContent = "";
  }

  switchTo(code) {
    this.code = code;
    localStorage.setItem(STORED, code);
    this.apply(document);
  }

  apply(root) {
    document.documentElement.lang = TAGS[this.code];
    document.title = this.text("title");
    for (const each of root.querySelectorAll("[data-text]")) {
      each.textContent = this.text(each.dataset.text, JSON.parse(each.dataset.values ?? "{}"));
    }
    for (const each of root.querySelectorAll("[data-label]")) {
      each.setAttribute("aria-label", this.text(each.dataset.label, JSON.parse(each.dataset.labelValues ?? "{}")));
    }
    for (const each of root.querySelectorAll("[data-placeholder]")) {
      each.placeholder = this.text(each.dataset.placeholder);
    }
  }
}
