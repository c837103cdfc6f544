// The hub's page: what the hub does now, a console to subscribe and one to publish.
//
// Whatever comes from the hub is shown by `textContent` alone: an event is text, never markup.

const $ = (id) => document.getElementById(id);

/** An endpoint beside this page, wherever a proxy has mounted it. */
const endpoint = (name) => new URL(name, document.baseURI).href;

const number = new Intl.NumberFormat("en-US");

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function say(target, text, tone) {
  // An unchanged text is not set again: a screen reader would read it again.
  if (target.textContent !== text) target.textContent = text;
  if (tone) target.dataset.tone = tone;
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

const rateText = (rate) => (rate >= 10 || rate === 0 ? number.format(Math.round(rate)) : rate.toFixed(1));

function durationText(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = Math.max(0, units.findIndex(([, size]) => seconds >= size));
  const parts = seconds < 1 ? ["0 s"] : units.slice(first, first + 2).map(([unit, size], i) => {
    const count = Math.floor((i === 0 ? seconds : seconds % units[first][1]) / size);
    return `${count} ${unit}`;
  });
  return parts.join(" ");
}

// ---------------------------------------------------------------------------------------------------------------------
// Server-Sent Events
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Reads an event stream from pieces of text that may end anywhere.
 *
 * `EventSource` hands a named event only to a listener of that very name, so a console that does not know the names
 * beforehand has to read the stream itself. The rules are those of the HTML standard, "Interpreting an event stream".
 */
export class EventStreamParser {
  /** The cursor to come back with. It moves with each block, also with one that dispatches no event. */
  lastEventId = "";

  #rest = "";
  #endedWithCr = false;
  #block = { data: [], event: "", id: undefined };
  #on;

  /** @param on `block({event, id, data})` for each event; `retry(milliseconds)`. */
  constructor(on) {
    this.#on = on;
  }

  push(text) {
    if (text === "") return;
    const ends = /\r\n?|\n/g;
    // The LF of a CRLF that was cut in the middle: its line has ended already.
    let start = this.#endedWithCr && text[0] === "\n" ? 1 : 0;
    ends.lastIndex = start;
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      this.#line(this.#rest + text.slice(start, end.index));
      this.#rest = "";
      start = ends.lastIndex;
    }
    this.#rest += text.slice(start);
    this.#endedWithCr = text.endsWith("\r");
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    return this.#field(field, value);
  }

  #field(field, value) {
    if (field === "data") this.#block.data.push(value);
    else if (field === "event") this.#block.event = value;
    else if (field === "id" && !value.includes("\0")) this.#block.id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.#on.retry?.(Number(value));
  }

  #dispatch() {
    const { data, event, id } = this.#block;
    this.#block = { data: [], event: "", id: undefined };
    if (id !== undefined) this.lastEventId = id;
    if (data.length > 0) this.#on.block?.({ event: event || "message", id, data: data.join("\n") });
  }
}

/** Shortest and longest wait before a new attempt, unless the hub asks for a longer one. */
const RETRY_MIN = 500;
const RETRY_MAX = 30_000;

/**
 * How long to wait before attempt `failures + 1`, in milliseconds.
 *
 * After a stream that had opened it is what the hub asked for: that is spread over the clients already. After failures
 * it doubles up to a bound and is spread here, so that many pages do not come back at once.
 */
export function retryDelay(retry, failures, random = Math.random()) {
  const asked = Math.max(RETRY_MIN, retry);
  if (failures === 0) return asked;
  const doubled = Math.min(RETRY_MAX, asked * 2 ** failures);
  return Math.max(asked, doubled * (0.5 + random / 2));
}

/** A subscription that comes back by itself, at the place where it was cut, until it is closed or refused for good. */
class Stream {
  #url;
  #on;
  #attempt = new AbortController();
  #wake = () => {};
  #isClosed = false;
  #retry = 3000;
  #failures = 0;
  #isOpen = false;
  #farewell = "";
  #cursor = "";
  #silentAfter = 30_000;
  #lastHeard = 0;

  /** @param on `state(state, particulars)`, `block(block)`, `session(id)`. */
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    this.#run();
  }

  close() {
    this.#isClosed = true;
    this.#attempt.abort();
    this.#wake();
  }

  /** Ends the wait for the next attempt. */
  tryNow() {
    this.#wake();
  }

  /** A connection that says nothing for longer than its heartbeats allow is dead, even if no one has told us. */
  checkSilence() {
    if (this.#lastHeard > 0 && performance.now() - this.#lastHeard > this.#silentAfter) {
      this.#attempt.abort("nothing was heard for too long");
    }
  }

  async #run() {
    while (!this.#isClosed) {
      this.#on.state("connecting", { cursor: this.#cursor });
      this.#attempt = new AbortController();
      this.#isOpen = false;
      this.#lastHeard = performance.now();
      const end = await this.#connect().catch(() => this.#failure());
      this.#lastHeard = 0;
      if (this.#isClosed) return;
      if (end.isFinal) return this.#on.state("refused", end);
      const delay = Math.max(retryDelay(this.#retry, this.#failures), end.retryAfter ?? 0);
      this.#failures += 1;
      this.#on.state("waiting", { why: end.why, until: performance.now() + delay, cursor: this.#cursor });
      await this.#wait(delay);
    }
  }

  /** What a browser says of a failed connection differs and helps nobody. */
  #failure() {
    const { aborted, reason } = this.#attempt.signal;
    if (aborted) return { why: reason };
    return { why: this.#isOpen ? "the connection was lost" : "the hub could not be reached" };
  }

  #wait(delay) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** One connection from its request to its end. Says why it ended, and whether for good. */
  async #connect() {
    const headers = { accept: "text/event-stream" };
    if (this.#cursor) headers["last-event-id"] = this.#cursor;
    const response = await fetch(this.#url, { headers, cache: "no-store", signal: this.#attempt.signal });
    const refusal = await refusalOf(response);
    if (refusal) return refusal;
    const session = response.headers.get("fanfare-session");
    if (session) this.#on.session(session);
    this.#failures = 0;
    this.#isOpen = true;
    this.#farewell = "the stream ended";
    this.#on.state("open", { client: response.headers.get("fanfare-client") });
    await this.#read(response.body.getReader());
    return { why: this.#farewell };
  }

  async #read(reader) {
    const parser = new EventStreamParser({
      retry: (milliseconds) => { this.#retry = milliseconds; },
      block: (block) => {
        if (block.event === "$welcome") this.#silentAfter = silenceAllowed(block.data);
        if (block.event === "$closing") this.#farewell = `the hub ended the stream (${jsonOf(block.data)?.reason})`;
        this.#on.block(block);
      },
    });
    parser.lastEventId = this.#cursor;
    // Removes a byte order mark and joins characters that are cut by the end of a chunk.
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.#isClosed) return;
      this.#lastHeard = performance.now();
      parser.push(decoder.decode(value, { stream: true }));
      this.#cursor = parser.lastEventId;
    }
  }
}

/** Why an answer is no stream: for good, as with `EventSource`, but for what a server says is temporary. */
async function refusalOf(response) {
  const { status } = response;
  if (status === 204) return { isFinal: true, why: "the session was ended; the hub asks not to come back" };
  if (status === 200) {
    const type = response.headers.get("content-type") ?? "none";
    return type.startsWith("text/event-stream") ? undefined : { isFinal: true, why: `content type ${type} is no event stream` };
  }
  const problem = await problemOf(response);
  const isTemporary = status === 429 || status >= 500;
  const retryAfter = Number(response.headers.get("retry-after")) * 1000 || 0;
  return { isFinal: !isTemporary, why: problemText(problem), problem, retryAfter };
}

/** As long as two heartbeats and a half are late, their jitter and a slow network may be to blame. */
function silenceAllowed(welcome) {
  const heartbeat = Number(jsonOf(welcome)?.heartbeat);
  return heartbeat > 0 ? heartbeat * 2500 + 1000 : 30_000;
}

function jsonOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Problems (RFC 9457)
// ---------------------------------------------------------------------------------------------------------------------

async function problemOf(response) {
  const text = await response.text();
  const read = jsonOf(text);
  return typeof read === "object" && read !== null ? read : { status: response.status, title: response.statusText, detail: text };
}

function problemText(problem) {
  const words = [problem.title, problem.detail].filter(Boolean).join(": ");
  return `${problem.status ?? ""} ${words}`.trim();
}

function clearProblem(form) {
  for (const field of form.querySelectorAll("[data-field]")) clearField(field);
}

function clearField(field) {
  const error = field?.querySelector(".error");
  if (!error) return;
  error.hidden = true;
  for (const control of controlsOf(field)) control.removeAttribute("aria-invalid");
}

/** Marks the field that a problem names, and takes the reader there. */
function markProblem(form, name, detail) {
  const field = form.querySelector(`[data-field="${CSS.escape(name)}"]:not([hidden])`);
  const error = field?.querySelector(".error");
  if (!error) return;
  error.textContent = detail;
  error.hidden = false;
  const [control] = controlsOf(field);
  control?.setAttribute("aria-invalid", "true");
  control?.focus();
}

const controlsOf = (field) => field.querySelectorAll("textarea, select, input:not([name=kind])");

// ---------------------------------------------------------------------------------------------------------------------
// The list of received blocks
// ---------------------------------------------------------------------------------------------------------------------

const KEPT = 500;
/** What a row shows before it is opened, and at most. */
const BRIEF = 200;
const SHOWN = 16_384;

const notices = {
  $welcome: (told) => ["good", `Connected; a heartbeat every ${told.heartbeat} s.`],
  $gap: (told) => ["warn", `Events after ${told.after} are gone (${told.reason}). The stream goes on at ${told.resumed_at}; the head is ${told.head}.`],
  $reset: (told) => ["warn", `The cursor could not be resumed (${told.reason}). The stream starts afresh; the head is ${told.head}.`],
  $lag: (told) => ["warn", `This client was too slow: ${told.dropped} ephemeral events were left out here.`],
  $closing: (told) => ["warn", `The hub ends the stream: ${told.reason}.`],
};

class BlockList {
  #list = $("blocks");
  #pending = [];
  #isDrawing = false;
  #isPaused = false;

  add(block) {
    this.#pending.push({ ...block, at: new Date() });
    // Cut now and then rather than each time: a fast stream would move the array for every block.
    if (this.#pending.length > 2 * KEPT) this.#pending = this.#pending.slice(-KEPT);
    this.#drawSoon();
  }

  pause(isPaused) {
    this.#isPaused = isPaused;
    this.#drawSoon();
  }

  clear() {
    this.#pending = [];
    this.#list.replaceChildren();
    this.#count();
  }

  /** Once a frame, however many blocks come: a list that is drawn for each would stop the page under load. */
  #drawSoon() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      if (!this.#isPaused) this.#draw();
      this.#count();
    });
  }

  #draw() {
    const rows = this.#pending.slice(-KEPT).reverse().map(row);
    this.#pending = [];
    this.#list.prepend(...rows);
    while (this.#list.childElementCount > KEPT) this.#list.lastElementChild.remove();
  }

  #count() {
    const count = this.#list.childElementCount;
    $("log-empty").hidden = count > 0;
    const held = this.#isPaused ? `; ${Math.min(KEPT, this.#pending.length)} held back` : "";
    say($("shown"), count > 0 || held ? `· newest ${count} shown${held}` : "");
  }
}

function row(block) {
  const made = element("li");
  const time = element("time", "", clock(block.at));
  time.dateTime = block.at.toISOString();
  const id = element("span", "id", block.id ?? "–");
  made.append(time, element("span", "name", block.event), id, dataOf(block, made));
  return made;
}

function dataOf(block, made) {
  const cell = element("div", "data");
  // What the page itself has to say has no data.
  if (block.note !== undefined) {
    made.dataset.tone = "quiet";
    cell.append(element("span", "said", block.note));
    return cell;
  }
  const told = notices[block.event] && jsonOf(block.data);
  if (told || block.event.startsWith("$")) {
    const [tone, words] = told ? notices[block.event](told) : ["warn", ""];
    made.dataset.tone = tone;
    cell.append(element("span", "said", words), element("span", "raw", block.data));
    return cell;
  }
  cell.append(payload(block.data));
  return cell;
}

/** A payload, folded if it is long. A huge one is cut: 500 of them would fill the memory of a phone. */
function payload(data) {
  if (data.length <= BRIEF && data.split("\n").length <= 6) return document.createTextNode(data);
  const details = element("details");
  const brief = data.slice(0, BRIEF).replaceAll("\n", " ");
  details.append(element("summary", "", `${brief}… (${number.format(data.length)} characters)`));
  const cut = data.length > SHOWN ? `\n… ${number.format(data.length - SHOWN)} more characters` : "";
  details.append(element("div", "", data.slice(0, SHOWN) + cut));
  return details;
}

function clock(date) {
  const pad = (value, width = 2) => String(value).padStart(width, "0");
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`;
}

// ---------------------------------------------------------------------------------------------------------------------
// The console to subscribe
// ---------------------------------------------------------------------------------------------------------------------

function subscribeUrl() {
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

class SubscribeConsole {
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
  }

  #connect() {
    this.#stream?.close();
    clearProblem(this.#form);
    $("subscribe-problem").hidden = true;
    // A stream that was replaced may still report its end: only the newest one is listened to.
    let stream;
    const ifNewest = (act) => (...args) => { if (stream === undefined || stream === this.#stream) act(...args); };
    stream = new Stream(subscribeUrl(), {
      state: ifNewest((state, told) => this.#show(state, told)),
      block: ifNewest((block) => this.#take(block)),
      session: ifNewest(offerSession),
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
    if (state === "open") this.#showPill("connected", "good", told.client && `client ${told.client}`);
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

// ---------------------------------------------------------------------------------------------------------------------
// The console to publish
// ---------------------------------------------------------------------------------------------------------------------

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

let ownSession = "";

function offerSession(session) {
  ownSession = session;
  $("own-session").disabled = false;
  $("own-session").title = session;
}

function showAudience() {
  for (const name of ["channel", "channels", "sessions", "everyone"]) {
    $("publish").querySelector(`[data-field=${name}]`).hidden = name !== chosen("audience");
  }
}

function audienceValue() {
  switch (chosen("audience")) {
    case "channel": return $("pub-channel").value.trim();
    case "channels": return lines($("pub-channels").value);
    case "sessions": return lines($("pub-sessions").value);
    default: return true;
  }
}

function attributesValue() {
  const pairs = lines($("pub-attributes").value).map((line) => {
    const colon = line.indexOf(":");
    if (colon < 0) throw new InvalidField("attributes", `“${line}” has no colon between key and value`);
    return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  });
  return pairs.length > 0 ? Object.fromEntries(pairs) : undefined;
}

class InvalidField extends Error {
  constructor(field, detail) {
    super(detail);
    this.field = field;
  }
}

/** The data as JSON text. JSON goes as it was written: read and written again, 1.10 would be 1.1. */
function dataText() {
  const text = $("pub-data").value;
  if (chosen("kind") === "text") return JSON.stringify(text);
  if (text.trim() === "") return undefined;
  try {
    JSON.parse(text);
  } catch (error) {
    throw new InvalidField("data", `this is not JSON: ${error.message}`);
  }
  return text.trim();
}

/** The body of the publish, as text. */
function publishBody() {
  const fields = [
    [chosen("audience"), JSON.stringify(audienceValue())],
    ["event", JSON.stringify($("pub-event").value.trim() || undefined)],
    ["data", dataText()],
    ["attributes", JSON.stringify(attributesValue())],
    ["id", JSON.stringify($("pub-id").value.trim() || undefined)],
    ["ephemeral", $("pub-ephemeral").checked ? "true" : undefined],
  ];
  const given = fields.filter(([, text]) => text !== undefined);
  return `{${given.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(",")}}`;
}

async function publish() {
  clearProblem($("publish"));
  let body;
  try {
    body = publishBody();
  } catch (error) {
    // Nothing was sent, so an older answer must not look like the answer to this.
    $("publish-answer").hidden = true;
    return markProblem($("publish"), error.field, error.message);
  }
  const start = performance.now();
  try {
    const response = await fetch(endpoint("publish"), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    await showAnswer(response, start);
  } catch (error) {
    showAnswerText("bad", "The hub could not be reached; whether it took the event is not known.", error.message);
  }
  return undefined;
}

async function showAnswer(response, start) {
  if (!response.ok) {
    const problem = await problemOf(response);
    showAnswerText("bad", problemText(problem), JSON.stringify(problem, null, 2));
    if (problem.field) markProblem($("publish"), problem.field, problem.detail);
    return;
  }
  const receipt = await response.json();
  const took = (performance.now() - start).toFixed(1);
  const words = receipt.duplicate ? "known already, not sent again" : receipt.seq === null ? "sent, not stored" : "committed";
  showAnswerText(receipt.duplicate ? "warn" : "good", `${response.status} ${words} in ${took} ms`, JSON.stringify(receipt, null, 2));
}

function showAnswerText(tone, summary, body) {
  $("publish-answer").hidden = false;
  $("publish-answer").dataset.tone = tone;
  $("publish-summary").textContent = summary;
  $("publish-body").textContent = body;
}

// ---------------------------------------------------------------------------------------------------------------------
// The curl lines
// ---------------------------------------------------------------------------------------------------------------------

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function showCurl() {
  $("curl-subscribe").textContent = `curl -N ${quoted(subscribeUrl())}`;
  try {
    const body = quoted(publishBody());
    $("curl-publish").textContent = `curl -H 'content-type: application/json' -d ${body} ${endpoint("publish")}`;
  } catch {
    // While a field is being written it may be wrong: the last good line stays.
  }
}

async function copy(button) {
  const source = $(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // There is no clipboard without TLS but on a loopback address: what is selected can be copied by hand.
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// ---------------------------------------------------------------------------------------------------------------------
// Counters and plots
// ---------------------------------------------------------------------------------------------------------------------

const WINDOW = 60_000;
const POLL_EVERY = 1000;
/** How often a hub is asked that does not answer. */
const POLL_AWAY = 3000;
/** A rate over a longer pause, in which the page was hidden or the hub away, would say nothing of its course. */
const PAUSE = 5_000;

/** The samples of the last minute. A sample without a rate is a break in the curve. */
class History {
  samples = [];
  #last;

  add(status) {
    const at = performance.now();
    const last = this.#last;
    this.#last = { at, published: status.published };
    // Fewer than before: the hub was started again.
    const follows = last && at - last.at < PAUSE && status.published >= last.published;
    const rate = follows ? ((status.published - last.published) * 1000) / (at - last.at) : undefined;
    this.samples.push({ at, rate, clients: status.clients });
    this.samples = this.samples.filter((sample) => at - sample.at < WINDOW + PAUSE);
    return rate;
  }
}

function showStatus(status, rate) {
  $("status").classList.remove("stale");
  $("status-note").hidden = true;
  for (const name of ["clients", "sessions", "channels", "head", "published", "refused", "in_flight"]) {
    showCount($(name), status[name]);
  }
  say($("rate"), rate === undefined ? "–" : rateText(rate));
  say($("uptime"), durationText(status.uptime));
  if (status.draining) say($("hub-state"), "draining", "warn");
  else if (!status.ready) say($("hub-state"), "log not open", "warn");
  else say($("hub-state"), "ready", "good");
}

/** A count that would not fit is shortened; its title has all of it. */
function showCount(target, count) {
  const isLong = count >= 1e8;
  const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
  say(target, isLong ? short.format(count) : number.format(count));
  target.title = number.format(count);
}

/** A round number not below `value`, so that the scale of a plot does not jump with each sample. */
function roundUp(value) {
  const step = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 4, 6, 8, 10].map((factor) => factor * step).find((candidate) => candidate >= value);
}

function draw(canvas, samples, key) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (width === 0) return;
  // Setting the size also clears the canvas.
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const colors = { curve: style.color, line: style.getPropertyValue("--line"), text: style.getPropertyValue("--muted") };
  const box = { left: 44, right: width - 4, top: 10, bottom: height - 18 };
  const now = samples.at(-1)?.at ?? 0;
  const max = roundUp(Math.max(1, ...samples.map((sample) => sample[key] ?? 0)));
  drawScale(context, box, max, colors);
  const x = (at) => box.right - ((now - at) / WINDOW) * (box.right - box.left);
  const y = (value) => box.bottom - (value / max) * (box.bottom - box.top);
  for (const run of runs(samples, key)) {
    drawRun(context, run.map((sample) => [x(sample.at), y(sample[key])]), box, colors.curve);
  }
}

function drawScale(context, box, max, colors) {
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  context.strokeStyle = colors.line;
  context.fillStyle = colors.text;
  context.textBaseline = "middle";
  context.textAlign = "right";
  const label = new Intl.NumberFormat("en-US", { notation: "compact" });
  for (const value of [0, max / 2, max]) {
    const y = Math.round(box.bottom - (value / max) * (box.bottom - box.top)) + 0.5;
    context.beginPath();
    context.moveTo(box.left, y);
    context.lineTo(box.right, y);
    context.stroke();
    // Half a client would be an odd thing to mark.
    if (Number.isInteger(value)) context.fillText(label.format(value), box.left - 6, y);
  }
  context.textBaseline = "alphabetic";
  for (const [seconds, align] of [[60, "left"], [30, "center"], [0, "right"]]) {
    context.textAlign = align;
    const x = box.right - (seconds / 60) * (box.right - box.left);
    context.fillText(seconds === 0 ? "now" : `−${seconds} s`, x, box.bottom + 14);
  }
}

/** The samples in pieces without a break. */
function runs(samples, key) {
  const pieces = [[]];
  let before;
  for (const sample of samples) {
    if (before && sample.at - before.at > PAUSE) pieces.push([]);
    if (sample[key] === undefined) pieces.push([]);
    else pieces.at(-1).push(sample);
    before = sample;
  }
  return pieces.filter((piece) => piece.length > 0);
}

function drawRun(context, points, box, color) {
  context.save();
  // What is older than the window leaves it by the left edge.
  context.beginPath();
  context.rect(box.left, 0, box.right - box.left + 4, box.bottom + 1);
  context.clip();
  context.beginPath();
  points.forEach(([x, y], i) => (i === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = 1.75;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(points.at(-1)[0], box.bottom);
  context.lineTo(points[0][0], box.bottom);
  context.globalAlpha = 0.13;
  context.fill();
  context.globalAlpha = 1;
  if (points.at(-1)[0] === box.right) {
    context.beginPath();
    context.arc(...points.at(-1), 2.5, 0, 2 * Math.PI);
    context.fill();
  }
  context.restore();
}

class StatusPanel {
  #history = new History();
  #timer;
  #isAsking = false;
  #isStopped = false;
  #every = POLL_EVERY;

  constructor() {
    // Nobody looks at a hidden page, and a hub with a thousand of them would be asked a thousand times a second.
    document.addEventListener("visibilitychange", () => this.#poll());
    new ResizeObserver(() => this.#draw()).observe($("plot-rate"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
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
    const response = await fetch(endpoint("status"), { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (response.ok) {
      const status = await response.json();
      this.#every = POLL_EVERY;
      showStatus(status, this.#history.add(status));
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

  /** For good: the same question would get the same answer. */
  #stop(status, problem) {
    this.#isStopped = true;
    $("status").classList.add("stale");
    say($("hub-state"), "no counters", "quiet");
    const why = {
      403: "The counters need an admin grant, and this browser has none. Both consoles work without it.",
      404: "The counters are not served at this address.",
    }[status];
    say($("status-note"), why ?? `There are no counters: ${problemText(problem)}`, "warn");
    $("status-note").hidden = false;
    const wasShown = this.#history.samples.length > 0;
    for (const part of $("status").querySelectorAll(".tiles, .plots")) part.hidden = !wasShown;
  }

  #draw() {
    draw($("plot-rate"), this.#history.samples, "rate");
    draw($("plot-clients"), this.#history.samples, "clients");
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Start
// ---------------------------------------------------------------------------------------------------------------------

/** In a box Enter starts a line, so Ctrl or Cmd with it submits. */
function submitByKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.form) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
}

function addOwnSession() {
  const known = lines($("pub-sessions").value);
  if (!known.includes(ownSession)) $("pub-sessions").value = [...known, ownSession].join("\n");
  showCurl();
}

function start() {
  new StatusPanel();
  new SubscribeConsole();
  $("publish").addEventListener("submit", (event) => {
    event.preventDefault();
    publish();
  });
  $("publish").addEventListener("change", showAudience);
  $("own-session").addEventListener("click", addOwnSession);
  for (const form of [$("subscribe"), $("publish")]) {
    form.addEventListener("input", (event) => {
      // What was said of the old value may not hold for the new one.
      clearField(event.target.closest("[data-field]"));
      showCurl();
    });
    form.addEventListener("keydown", submitByKey);
  }
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
  // A browser fills fields in again when a page is loaded again.
  showAudience();
  showCurl();
}

start();
