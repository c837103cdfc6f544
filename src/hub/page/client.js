// What the hub knows of one client: for the question why it has not got an event.

import { $, say } from "./dom.js";
import { endpoint, problemOf, problemText, withToken } from "./hub.js";

/** The client of this page's own stream is the one that is asked about first. */
export function offerClient(id) {
  if (id && !$("client-id").value) $("client-id").value = id;
}

export async function askForClient() {
  const id = $("client-id").value.trim();
  if (!id) return $("client-id").focus();
  try {
    const response = await fetch(endpoint(`clients/${encodeURIComponent(id)}`), { headers: withToken(), cache: "no-store" });
    if (!response.ok) return show("bad", problemText(await problemOf(response)), "");
    const client = await response.json();
    const { state, closed, lag, queued } = client;
    const words = closed ? `closed: ${closed.reason}` : `${state.replace("_", " ")}, ${queued} queued, ${lag} behind`;
    return show(closed || lag > 0 ? "warn" : "good", words, JSON.stringify(client, null, 2));
  } catch (error) {
    return show("bad", "The hub could not be reached.", error.message);
  }
}

function show(tone, words, body) {
  $("client-answer").hidden = false;
  $("client-answer").dataset.tone = tone;
  say($("client-summary"), words);
  say($("client-body"), body);
}
