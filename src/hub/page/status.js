// The hub now: counters, plots, and the busiest channels.

import { $, durationText, element, number, rateText, say } from "./dom.js";
import { History } from "./history.js";
import { endpoint, problemOf, problemText, withToken } from "./hub.js";
import { draw } from "./plots.js";

const POLL_EVERY = 1000;
/** How often a hub is asked that does not answer. */
const POLL_AWAY = 3000;

const sum = (counts) => Object.values(counts).reduce((all, count) => all + count, 0);

/** What is plotted: the canvas, what of a sample, and how its scale is written. */
const PLOTS = [
  ["plot-published", ["published"]],
  ["plot-delivered", ["delivered"]],
  ["plot-latency", ["p50", "p99"], { unit: " ms" }],
  ["plot-connections", ["sse", "ws", "stream"], { isWhole: true }],
  ["plot-queue", ["queue", "inFlight"], { isWhole: true }],
];

const millis = (value) => (value === undefined ? "–" : `${value < 10 ? value.toFixed(2) : number.format(Math.round(value))} ms`);
const rate = (value) => (value === undefined ? "–" : rateText(value));

function showStatus(status, sample) {
  $("status").classList.remove("stale");
  $("status-note").hidden = true;
  const counts = {
    clients: status.clients,
    sessions: status.sessions,
    channels: status.channels,
    head: status.head,
    "published-total": status.published_total,
    "delivered-total": sum(status.delivered),
    dropped: sum(status.dropped),
    lagging: status.lagging,
  };
  for (const [name, count] of Object.entries(counts)) showCount($(name), count);
  $("dropped").parentElement.dataset.tone = counts.dropped > 0 ? "warn" : "";
  const now = {
    "now-published": rate(sample.published),
    "now-delivered": rate(sample.delivered),
    "now-p50": millis(sample.p50),
    "now-p99": millis(sample.p99),
    "now-sse": number.format(sample.sse),
    "now-ws": number.format(sample.ws),
    "now-stream": number.format(sample.stream),
    "now-queue": number.format(sample.queue),
    "now-in-flight": number.format(sample.inFlight),
  };
  for (const [name, text] of Object.entries(now)) say($(name), text);
  showBusiest(status.busiest);
  say($("uptime"), durationText(status.uptime));
  if (status.draining) say($("hub-state"), "draining", "warn");
  else if (!status.ready) say($("hub-state"), "log not open", "warn");
  else say($("hub-state"), "ready", "good");
}

function showBusiest({ window, channels }) {
  const shown = channels.slice(0, 6);
  $("busiest-empty").hidden = shown.length > 0;
  const most = shown[0]?.events ?? 1;
  $("busiest").replaceChildren(...shown.map(({ channel, events, error }) => {
    const row = element("li");
    const name = element("span", "name", channel);
    name.title = channel;
    const share = element("span", "share");
    const bar = element("span");
    // By a property of the element: the page's policy lets no style stand in markup.
    bar.style.width = `${(100 * events) / most}%`;
    share.append(bar);
    // Of a channel that came late, what it took over may be another's.
    const count = element("span", "count", `${error > 0 ? "≤ " : ""}${rateText(events / window)}/s`);
    row.append(name, share, count);
    return row;
  }));
}

/** A count that would not fit is shortened; its title has all of it. */
function showCount(target, count) {
  const isLong = count >= 1e8;
  const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
  say(target, isLong ? short.format(count) : number.format(count));
  target.title = number.format(count);
}

export class StatusPanel {
  #history = new History();
  #timer;
  #isAsking = false;
  #isStopped = false;
  #every = POLL_EVERY;

  constructor() {
    // Nobody looks at a hidden page, and a hub with a thousand of them would be asked a thousand times a second.
    document.addEventListener("visibilitychange", () => this.#poll());
    new ResizeObserver(() => this.#draw()).observe($("plot-published"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.#poll();
  }

  /** Asks again, after it was refused: the token is another one. */
  restart() {
    this.#isStopped = false;
    this.#poll();
  }

  /** Asks, and asks again a second after it began to ask; never twice at a time. */
  async #poll() {
    clearTimeout(this.#timer);
    if (document.hidden || this.#isStopped || this.#isAsking) return;
    this.#isAsking = true;
    const start = performance.now();
    await this.#ask().catch(() => this.#showAway("the hub does not answer"));
    this.#isAsking = false;
    this.#timer = setTimeout(() => this.#poll(), Math.max(100, this.#every - (performance.now() - start)));
  }

  async #ask() {
    const signal = AbortSignal.timeout(5000);
    const response = await fetch(endpoint("status"), { headers: withToken(), cache: "no-store", signal });
    if (response.ok) {
      const status = await response.json();
      this.#every = POLL_EVERY;
      showStatus(status, this.#history.add(status));
      for (const part of $("status").querySelectorAll(".tiles, .plots")) part.hidden = false;
      return this.#draw();
    }
    const problem = await problemOf(response);
    if (response.status === 429 || response.status >= 500) return this.#showAway(problemText(problem));
    return this.#stop(response.status, problem);
  }

  #showAway(why) {
    this.#every = POLL_AWAY;
    $("status").classList.add("stale");
    say($("hub-state"), why, "bad");
  }

  /** For good, or until there is another token: the same question would get the same answer. */
  #stop(status, problem) {
    this.#isStopped = true;
    $("status").classList.add("stale");
    say($("hub-state"), status === 401 ? "needs a token" : "no counters", status === 401 ? "warn" : "quiet");
    const why = {
      401: "This hub serves those who have a token. Paste one above; with an admin grant it shows the counters too.",
      403: "The counters need an admin grant, and this browser has none. Both consoles work without it.",
      404: "The counters are not served at this address.",
    }[status];
    say($("status-note"), why ?? `There are no counters: ${problemText(problem)}`, "warn");
    $("status-note").hidden = false;
    const wasShown = this.#history.samples.length > 0;
    for (const part of $("status").querySelectorAll(".tiles, .plots")) part.hidden = !wasShown;
  }

  #draw() {
    for (const [canvas, series, told] of PLOTS) draw($(canvas), this.#history.samples, series, told);
  }
}
