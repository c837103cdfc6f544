// One connection by Server-Sent Events.

import { problemOf, problemText, withToken } from "./hub.js";

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

/** Connects to an event stream. */
export const overSse = (url) => async (stream) => {
  const headers = withToken({ accept: "text/event-stream" });
  if (stream.cursor) headers["last-event-id"] = stream.cursor;
  const response = await fetch(url, { headers, cache: "no-store", signal: stream.signal });
  const refusal = await refusalOf(response);
  if (refusal) return refusal;
  stream.opened(response.headers.get("fanfare-client"), response.headers.get("fanfare-session"));
  await read(response.body.getReader(), stream);
  return { why: stream.farewell };
};

async function read(reader, stream) {
  const parser = new EventStreamParser({
    retry: (milliseconds) => { stream.retry = milliseconds; },
    block: (block) => stream.took(block),
  });
  parser.lastEventId = stream.cursor;
  // Removes a byte order mark and joins characters that are cut by the end of a chunk.
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    stream.heard();
    parser.push(decoder.decode(value, { stream: true }));
    stream.cursor = parser.lastEventId;
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
