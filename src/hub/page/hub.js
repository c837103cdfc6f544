// The hub as the page asks it: its endpoints, the token that speaks for this page, and what it says when it refuses.

import { jsonOf } from "./dom.js";

/** An endpoint beside this page, wherever a proxy has mounted it. */
export const endpoint = (name) => new URL(name, document.baseURI).href;

// ---------------------------------------------------------------------------------------------------------------------
// The token
// ---------------------------------------------------------------------------------------------------------------------

const KEPT_AS = "fanfare-token";

/** Kept for as long as this tab: a token that opens a hub is not left behind in a browser. */
export const token = {
  get: () => sessionStorage.getItem(KEPT_AS) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEPT_AS, text) : sessionStorage.removeItem(KEPT_AS)),
};

/** Headers with the token, if there is one. */
export function withToken(headers = {}) {
  return token.get() ? { ...headers, authorization: `Bearer ${token.get()}` } : headers;
}

/** A handshake takes no header from a page: for its moment, the token is a cookie. */
export function withTokenCookie(open) {
  if (!token.get()) return open();
  const attributes = `path=/; samesite=strict${location.protocol === "https:" ? "; secure" : ""}`;
  document.cookie = `fanfare_token=${token.get()}; max-age=10; ${attributes}`;
  const opened = open();
  const forget = () => { document.cookie = `fanfare_token=; max-age=0; ${attributes}`; };
  opened.addEventListener("open", forget);
  opened.addEventListener("close", forget);
  return opened;
}

// ---------------------------------------------------------------------------------------------------------------------
// Problems (RFC 9457)
// ---------------------------------------------------------------------------------------------------------------------

export async function problemOf(response) {
  const text = await response.text();
  const read = jsonOf(text);
  return typeof read === "object" && read !== null ? read : { status: response.status, title: response.statusText, detail: text };
}

export function problemText(problem) {
  const words = [problem.title, problem.detail].filter(Boolean).join(": ");
  return `${problem.status ?? ""} ${words}`.trim();
}
