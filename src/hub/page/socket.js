// One connection by a WebSocket.

import { endpoint, problemText, withTokenCookie } from "./hub.js";
import { jsonOf } from "./dom.js";

const REVOKED = 4001;
/** The hub's own pings are answered by the browser, and a page does not see them. */
const PING_EVERY = 10_000;
/** What is asked first, and answered under this name. */
const SUBSCRIBE = 1;

/**
 * Connects by a WebSocket and follows the channels.
 *
 * @param wanted `{channels, filter, from}`, as they stand in a `subscribe`.
 */
export const overSocket = (wanted) => (stream) => new Promise((resolve) => {
  const url = new URL(endpoint("ws"));
  url.protocol = url.protocol.replace("http", "ws");
  const socket = withTokenCookie(() => new WebSocket(url, "fanfare.v1.json"));
  const end = (how) => {
    resolve(how);
    socket.close();
  };
  stream.signal.addEventListener("abort", () => end({ why: stream.signal.reason ?? "closed" }));
  socket.addEventListener("open", () => {
    const place = stream.cursor ? { cursor: stream.cursor } : wanted.from ? { from: wanted.from } : {};
    const { channels, filter } = wanted;
    if (channels.length > 0) socket.send(JSON.stringify({ op: "subscribe", ref: SUBSCRIBE, channels, filter, ...place }));
  });
  let isOpen = false;
  const pinging = setInterval(() => socket.readyState === WebSocket.OPEN && socket.send('{"op":"ping"}'), PING_EVERY);
  socket.addEventListener("message", ({ data }) => {
    stream.heard();
    const told = jsonOf(data);
    if (told?.op === "welcome") {
      isOpen = true;
      stream.opened(told.client, told.session);
    }
    if (told?.op === "error" && told.ref === SUBSCRIBE) return end({ isFinal: true, why: problemText(told), problem: named(told) });
    if (told?.op === "closing" && told.retry > 0) stream.retry = told.retry;
    if (told?.cursor) stream.cursor = told.cursor;
    const block = blockOf(told, data);
    if (block) stream.took(block);
    return undefined;
  });
  socket.addEventListener("close", ({ code, reason }) => {
    clearInterval(pinging);
    if (isOpen) return resolve({ why: stream.farewell + (reason ? `: ${reason}` : ""), isFinal: code === REVOKED });
    // A browser does not tell a page with which status a handshake was refused.
    return resolve({ why: "the socket could not be opened (no connection, or a token that does not allow it)" });
  });
});

/** A `subscribe` names its channels otherwise than a query. */
const named = (problem) => ({ ...problem, field: problem.field === "channels" ? "channel" : problem.field });

const NOTICES = ["welcome", "gap", "reset", "lag", "closing"];

/** What was said, in the words of an event stream. */
function blockOf(told, text) {
  if (told?.op === "event") {
    const { event, cursor, data } = told;
    return { event, id: cursor, data: typeof data === "string" ? data : JSON.stringify(data) };
  }
  if (NOTICES.includes(told?.op)) return { event: `$${told.op}`, id: told.cursor, data: text };
  if (told?.op === "subscribed") return { event: "subscribed", id: told.cursor, note: "The hub has taken the subscription." };
  return undefined;
}
