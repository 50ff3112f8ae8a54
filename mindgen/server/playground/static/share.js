// What is asked, as the fragment of the page's address, which browsers send to no server; no key is in it.

import { FIRST_SAMPLING, checkedSampling } from "./sampling.js";

export const MOST_COLUMNS = 4;
const LONGEST_TEXT = 100_000;
const LONGEST_NAME = 1_000;

export const FIRST_STATE = { mode: "plain", prompt: "", system: "", models: [], sampling: FIRST_SAMPLING };

export function toFragment({ mode, prompt, system, models, sampling }) {
  const fields = new URLSearchParams({ mode, prompt });
  if (system) fields.set("system", system);
  for (const model of models) fields.append("model", model);
  for (const [name, value] of Object.entries(sampling)) {
    for (const each of [value].flat()) fields.append(name, each);
  }
  return `#${fields}`;
}

/** Whatever somebody wrote there becomes a state that the page can have; null where there is none. */
export function fromFragment(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (!fields.has("mode")) return null;
  return {
    mode: fields.get("mode") === "chat" ? "chat" : "plain",
    prompt: (fields.get("prompt") ?? "").slice(0, LONGEST_TEXT),
    system: (fields.get("system") ?? "").slice(0, LONGEST_TEXT),
    models: fields.getAll("model").filter((name) => name && name.length <= LONGEST_NAME).slice(0, MOST_COLUMNS),
    sampling: checkedSampling({ ...Object.fromEntries(fields), stop: fields.getAll("stop") }),
  };
}
