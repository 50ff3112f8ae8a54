// The page's views as tabs, by ARIA's pattern: arrow keys move between them.

import { byId } from "./dom.js";

/** Returns a function that shows the view of a name; `onShow` is called when one is shown. */
export function setUpTabs(names, onShow) {
  const show = (chosen) => {
    for (const name of names) {
      byId(`view-${name}`).hidden = name !== chosen;
      byId(`tab-${name}`).setAttribute("aria-selected", String(name === chosen));
      byId(`tab-${name}`).tabIndex = name === chosen ? 0 : -1;
    }
    onShow();
  };
  names.forEach((name, place) => {
    byId(`tab-${name}`).addEventListener("click", () => show(name));
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = names[(place + step + names.length) % names.length];
      show(next);
      byId(`tab-${next}`).focus();
    });
  });
  return show;
}
