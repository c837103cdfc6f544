// The hub's page: what the hub does now, a console to subscribe, one to publish, and a look at one client.

import { askForClient } from "./client.js";
import { copy, showCurl } from "./curl.js";
import { $ } from "./dom.js";
import { clearField } from "./fields.js";
import { token } from "./hub.js";
import { addOwnSession, publish, showAudience } from "./publish.js";
import { StatusPanel } from "./status.js";
import { SubscribeConsole } from "./subscribe.js";

/** In a box Enter starts a line, so Ctrl or Cmd with it submits. */
function submitByKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.form) {
    event.preventDefault();
    event.target.form.requestSubmit();
  }
}

function start() {
  const status = new StatusPanel();
  new SubscribeConsole();
  $("publish").addEventListener("submit", (event) => {
    event.preventDefault();
    publish();
  });
  $("client").addEventListener("submit", (event) => {
    event.preventDefault();
    askForClient();
  });
  $("token").value = token.get();
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token.set($("token").value.trim());
    showCurl();
    status.restart();
  });
  $("publish").addEventListener("change", showAudience);
  $("own-session").addEventListener("click", () => {
    addOwnSession();
    showCurl();
  });
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
