// The console to publish.

import { $, lines } from "./dom.js";
import { clearProblem, markProblem } from "./fields.js";
import { endpoint, problemOf, problemText, withToken } from "./hub.js";

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

let ownSession = "";

export function offerSession(session) {
  ownSession = session;
  $("own-session").disabled = false;
  $("own-session").title = session;
}

export function showAudience() {
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
export function publishBody() {
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

export async function publish() {
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
      headers: withToken({ "content-type": "application/json" }),
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

export function addOwnSession() {
  const known = lines($("pub-sessions").value);
  if (!known.includes(ownSession)) $("pub-sessions").value = [...known, ownSession].join("\n");
}
