// Small things that all of the page needs.

export const $ = (id) => document.getElementById(id);

export const number = new Intl.NumberFormat("en-US");

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function say(target, text, tone) {
  // An unchanged text is not set again: a screen reader would read it again.
  if (target.textContent !== text) target.textContent = text;
  if (tone) target.dataset.tone = tone;
}

export const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

export const rateText = (rate) => (rate >= 10 || rate === 0 ? number.format(Math.round(rate)) : rate.toFixed(1));

export function durationText(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = Math.max(0, units.findIndex(([, size]) => seconds >= size));
  const parts = seconds < 1 ? ["0 s"] : units.slice(first, first + 2).map(([unit, size], i) => {
    const count = Math.floor((i === 0 ? seconds : seconds % units[first][1]) / size);
    return `${count} ${unit}`;
  });
  return parts.join(" ");
}

/** JSON, or nothing. */
export function jsonOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
