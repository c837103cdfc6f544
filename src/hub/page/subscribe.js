// The console to subscribe.

import { BlockList } from "./blocks.js";
import { offerClient } from "./client.js";
import { $, lines, number, say } from "./dom.js";
import { clearProblem, markProblem } from "./fields.js";
import { endpoint } from "./hub.js";
import { offerSession } from "./publish.js";
import { overSocket } from "./socket.js";
import { overSse } from "./sse.js";
import { Stream } from "./stream.js";

export function subscribeUrl() {
  // `/`, `:` and `*` may stand in a query as they are, and are what a reader looks for in the curl line.
  const encode = (text) => encodeURIComponent(text).replace(/%(2F|3A)/g, decodeURIComponent).replaceAll("'", "%27");
  const query = [
    ...lines($("sub-channels").value).map((channel) => ["channel", channel]),
    ...lines($("sub-filter").value).map((filter) => ["filter", filter]),
  ];
  const from = $("sub-from").value.trim();
  if (from) query.push(["from", from]);
  if ($("sub-format").value !== "raw") query.push(["format", $("sub-format").value]);
  const text = query.map(([key, value]) => `${key}=${encode(value)}`).join("&");
  return endpoint("events") + (text && `?${text}`);
}

/** As a socket's `subscribe` has it. */
function wanted() {
  const filters = lines($("sub-filter").value).map((filter) => {
    const colon = filter.indexOf(":");
    return colon < 0 ? [filter, ""] : [filter.slice(0, colon), filter.slice(colon + 1)];
  });
  return {
    channels: lines($("sub-channels").value),
    filter: Object.fromEntries(filters),
    from: $("sub-from").value.trim(),
  };
}

export class SubscribeConsole {
  #form = $("subscribe");
  #blocks = new BlockList();
  #stream;
  #waitsUntil = 0;
  #why = "";
  #received = 0;
  #receivedBefore = 0;

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#connect();
    });
    $("disconnect").addEventListener("click", () => this.#disconnect());
    $("retry-now").addEventListener("click", () => this.#stream?.tryNow());
    $("clear").addEventListener("click", () => this.#clear());
    $("pause").addEventListener("click", () => this.#togglePause());
    // A network that is back is worth an attempt at once.
    addEventListener("online", () => this.#stream?.tryNow());
    setInterval(() => this.#everySecond(), 1000);
    $("sub-by").addEventListener("change", showTransport);
    showTransport();
  }

  #connect() {
    this.#stream?.close();
    clearProblem(this.#form);
    $("subscribe-problem").hidden = true;
    // A stream that was replaced may still report its end: only the newest one is listened to.
    let stream;
    const ifNewest = (act) => (...args) => { if (stream === undefined || stream === this.#stream) act(...args); };
    const isSocket = $("sub-by").value === "ws";
    stream = new Stream(isSocket ? overSocket(wanted()) : overSse(subscribeUrl()), {
      state: ifNewest((state, told) => this.#show(state, told)),
      block: ifNewest((block) => this.#take(block)),
      session: ifNewest((session) => offerSession(session)),
    });
    this.#stream = stream;
    $("connect").textContent = "Reconnect";
    $("disconnect").disabled = false;
  }

  #disconnect() {
    this.#stream?.close();
    this.#end();
    say($("stream-state"), "not connected", "quiet");
    say($("stream-detail"), "");
    $("connect").focus();
  }

  #end() {
    this.#stream = undefined;
    this.#waitsUntil = 0;
    $("connect").textContent = "Connect";
    $("disconnect").disabled = true;
    $("retry-now").hidden = true;
  }

  #show(state, told) {
    this.#waitsUntil = state === "waiting" ? told.until : 0;
    $("retry-now").hidden = state !== "waiting";
    if (state === "connecting") this.#showPill("connecting…", "quiet", told.cursor && `after ${told.cursor}`);
    if (state === "open") {
      this.#showPill("connected", "good", told.client && `client ${told.client}`);
      offerClient(told.client);
    }
    if (state === "waiting") this.#showWaiting(told);
    if (state === "refused") this.#showRefused(told);
  }

  #showPill(text, tone, detail) {
    say($("stream-state"), text, tone);
    say($("stream-detail"), detail || "");
  }

  #showWaiting({ why, cursor }) {
    this.#why = why;
    say($("stream-state"), "cut off", "warn");
    this.#countDown();
    this.#blocks.add({ event: "cut off", note: cursor ? `${why}; goes on after ${cursor}` : why });
  }

  #showRefused({ why, problem }) {
    this.#end();
    this.#showPill("refused", "bad");
    say($("subscribe-problem"), why);
    $("subscribe-problem").hidden = false;
    if (problem?.field) markProblem(this.#form, problem.field, problem.detail);
  }

  #take(block) {
    if (!block.event.startsWith("$")) this.#received += 1;
    this.#blocks.add(block);
  }

  #everySecond() {
    this.#stream?.checkSilence();
    this.#countDown();
    const rate = this.#received - this.#receivedBefore;
    this.#receivedBefore = this.#received;
    const perSecond = this.#stream ? `, ${number.format(rate)} a second` : "";
    say($("received"), `${number.format(this.#received)} received${perSecond}`);
  }

  #countDown() {
    if (this.#waitsUntil === 0) return;
    const seconds = Math.max(0, Math.ceil((this.#waitsUntil - performance.now()) / 1000));
    say($("stream-detail"), `${this.#why}; again in ${seconds} s`);
  }

  #clear() {
    this.#received = this.#receivedBefore = 0;
    this.#blocks.clear();
    this.#everySecond();
  }

  #togglePause() {
    const isPaused = $("pause").getAttribute("aria-pressed") !== "true";
    $("pause").setAttribute("aria-pressed", String(isPaused));
    this.#blocks.pause(isPaused);
  }
}

/** A socket has one form of events. */
function showTransport() {
  $("sub-format").disabled = $("sub-by").value === "ws";
}
