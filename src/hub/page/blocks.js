// The list of received blocks.
//
// Whatever comes from the hub is shown by `textContent` alone: an event is text, never markup.

import { $, element, jsonOf, number, say } from "./dom.js";

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

export class BlockList {
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
    // Notices are shown too and are no events, so how many are shown says something only when some are not.
    const shown = count >= KEPT ? `· newest ${KEPT} shown` : "";
    say($("shown"), `${shown}${held}`.replace(/^; /, "· "));
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
