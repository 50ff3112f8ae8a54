// The sampling controls: an empty one leaves the server's default.

import { make } from "./dom.js";

const FIELDS = [
  { name: "temperature", min: 0, max: 10, step: 0.1, first: 0 },
  { name: "max_tokens", min: 1, max: 1_000_000, step: 1, first: 64 },
  { name: "top_p", min: 0, max: 1, step: 0.05 },
  { name: "top_k", min: -1, max: 1_000_000, step: 1 },
  { name: "seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
  { name: "presence_penalty", min: -2, max: 2, step: 0.1 },
  { name: "frequency_penalty", min: -2, max: 2, step: 0.1 },
  { name: "repetition_penalty", min: 0.1, max: 10, step: 0.1 },
];
const MOST_STOPS = 16;

export const FIRST_SAMPLING = Object.fromEntries(
  FIELDS.filter((field) => "first" in field).map((field) => [field.name, field.first]),
);

/** Only what is a sampling field, in its range; of texts or numbers from anywhere. */
export function checkedSampling(given) {
  const found = {};
  for (const { name, min, max, step } of FIELDS) {
    const value = Number(given[name]);
    const isGiven = given[name] !== undefined && given[name] !== null && String(given[name]).trim() !== "";
    if (isGiven && value >= min && value <= max) found[name] = step === 1 ? Math.round(value) : value;
  }
  const stops = (given.stop ?? []).filter((each) => typeof each === "string" && each).slice(0, MOST_STOPS);
  if (stops.length) found.stop = stops;
  return found;
}

export class SamplingForm {
  #inputs = new Map();
  #stop;
  #section;
  #summary;

  constructor(container, summary, language, onChange) {
    this.#section = container.closest("details");
    this.#summary = summary;
    for (const { name, min, max, step } of FIELDS) {
      const id = `sampling-${name}`;
      const input = make("input", {
        id, type: "number", min, max, step: step === 1 ? 1 : "any", "data-placeholder": "sampling_default",
      });
      this.#inputs.set(name, input);
      container.append(make("div", { class: "field" }, make("label", { for: id }, name), input));
    }
    this.#stop = make("textarea", { id: "sampling-stop", rows: 1, "data-placeholder": "sampling_stop" });
    container.append(make("div", { class: "field" }, make("label", { for: "sampling-stop" }, "stop"), this.#stop));
    container.addEventListener("input", () => {
      this.#summarize();
      onChange();
    });
    language.apply(container);
  }

  get values() {
    const given = Object.fromEntries([...this.#inputs].map(([name, input]) => [name, input.value]));
    return checkedSampling({ ...given, stop: this.#stop.value.split("\n") });
  }

  set values(given) {
    for (const [name, input] of this.#inputs) input.value = given[name] ?? "";
    this.#stop.value = (given.stop ?? []).join("\n");
    this.#summarize();
  }

  /** Whether all of it can be asked; what cannot is shown, with the browser's own reason. */
  report() {
    const wrong = [...this.#inputs.values()].find((input) => !input.validity.valid);
    if (!wrong) return true;
    this.#section.open = true; // there is no focus in what is closed
    return wrong.reportValidity();
  }

  #summarize() {
    this.#summary.textContent = Object.entries(this.values)
      .map(([name, value]) => `${name} ${Array.isArray(value) ? JSON.stringify(value) : value}`)
      .join(" · ");
  }
}
