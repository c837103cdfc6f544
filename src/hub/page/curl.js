// The same with curl.

import { $ } from "./dom.js";
import { endpoint, token } from "./hub.js";
import { publishBody } from "./publish.js";
import { subscribeUrl } from "./subscribe.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The token itself is not shown: what is on a screen is on pictures of it. */
const bearer = () => (token.get() ? '-H "authorization: Bearer $TOKEN" ' : "");

export function showCurl() {
  $("curl-subscribe").textContent = `curl -N ${bearer()}${quoted(subscribeUrl())}`;
  try {
    const body = quoted(publishBody());
    $("curl-publish").textContent = `curl ${bearer()}-H 'content-type: application/json' -d ${body} ${endpoint("publish")}`;
  } catch {
    // While a field is being written it may be wrong: the last good line stays.
  }
}

export async function copy(button) {
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
