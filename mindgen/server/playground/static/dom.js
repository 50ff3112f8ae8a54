// Elements without markup: what is text stays text.

/** `attributes.on` holds listeners by event; false and null leave an attribute out; strings among children are text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children);
  return element;
}

/** An element of an SVG picture. */
export function draw(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Of content digests: enough to tell two apart at a glance. */
export const shortDigest = (digest) => (digest ? digest.slice(0, 12) : "");
