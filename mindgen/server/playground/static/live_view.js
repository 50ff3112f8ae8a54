// How the server is now, asked once a second while somebody looks.

import { draw, make } from "./dom.js";

const SECONDS = 60; // of the curve
const COLORS = 8;

export class LiveView {
  #api;
  #language;
  #last = null;
  #speeds = [];
  #tiles = {};

  constructor(element, api, language) {
    this.#api = api;
    this.#language = language;
    this.curve = draw("polyline", { class: "curve" });
    const svg = draw("svg", { viewBox: `0 0 ${SECONDS} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(this.curve);
    this.cacheBar = make("span", { class: "bar-fill" });
    this.batchBar = make("span", { class: "bar-track stacked", "aria-hidden": "true" });
    element.append(
      this.#tile("throughput", svg),
      this.#tile("running"),
      this.#tile("waiting"),
      this.#tile("cache", make("span", { class: "bar-track", "aria-hidden": "true" }, this.cacheBar)),
      this.#tile("batch", this.batchBar),
    );
  }

  start() {
    const look = async () => {
      if (document.visibilityState === "visible") await this.#look();
      setTimeout(look, 1000);
    };
    look();
  }

  #tile(name, ...more) {
    const value = make("dd", { id: `live-${name}` }, "–");
    this.#tiles[name] = value;
    const title = this.#language.put(make("dt"), `live_${name}`);
    const pictures = more.map((each) => make("dd", { class: "picture" }, each));
    return make("dl", { class: `tile tile-${name}` }, title, value, ...pictures);
  }

  async #look() {
    try {
      this.#show(await this.#api.json("playground/live"));
    } catch (error) {
      this.#last = null;
      for (const each of Object.values(this.#tiles)) {
        this.#language.clear(each);
        each.textContent = "–";
      }
      this.#language.put(this.#tiles.throughput, error.code === "invalid_api_key" ? "live_key" : "live_off");
    }
  }

  #show({ replicas, batch }) {
    const total = (name) => replicas.reduce((sum, each) => sum + each[name], 0);
    const now = { time: performance.now(), tokens: total("generated_tokens") };
    const speed = speedBetween(this.#last, now);
    this.#last = now;
    if (speed !== null) this.#speeds = [...this.#speeds, speed].slice(-SECONDS);
    this.#language.put(this.#tiles.throughput, speed === null ? "unknown" : "live_tokens", { n: Math.round(speed) });
    const highest = Math.max(1, ...this.#speeds);
    const from = SECONDS - this.#speeds.length;
    const points = this.#speeds.map((each, place) => `${from + place + 1},${19 - (18 * each) / highest}`);
    this.curve.setAttribute("points", points.join(" "));
    this.#tiles.running.textContent = this.#language.number(total("running"));
    this.#tiles.waiting.textContent = this.#language.number(total("waiting"));
    const share = total("kv_blocks_used") / Math.max(1, total("kv_blocks"));
    this.#tiles.cache.textContent = this.#language.percent(share);
    this.cacheBar.style.width = `${share * 100}%`;
    this.#showBatch(batch);
  }

  #showBatch(batch) {
    const place = this.#tiles.batch;
    this.#language.clear(place);
    if (!batch.length) this.#language.put(place, "live_idle");
    const named = batch.map(({ name, outputs: n }) => ({ name: name ?? this.#language.text("live_others"), n }));
    const all = named.reduce((sum, each) => sum + each.n, 0);
    named.forEach((each, number) => {
      const dot = make("span", { class: `swatch color-${number % COLORS}`, "aria-hidden": "true" });
      place.append(make("span", { class: "share" }, dot, this.#language.text("live_share", each)));
    });
    this.batchBar.replaceChildren(
      ...named.map((each, number) => {
        const part = make("span", { class: `color-${number % COLORS}` });
        part.style.width = `${(100 * each.n) / all}%`;
        return part;
      }),
    );
  }
}

/** Tokens per second; null where it is not known: at first, and when a replica that has begun anew counts from 0. */
function speedBetween(last, now) {
  if (!last || now.tokens < last.tokens) return null;
  return (1000 * (now.tokens - last.tokens)) / (now.time - last.time);
}
