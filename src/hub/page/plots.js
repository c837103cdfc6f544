// Curves over the last minute, drawn by hand: a library would be larger than the page.

export const WINDOW = 60_000;
/** Samples that lie further apart are not joined: nobody knows what was between them. */
export const PAUSE = 5_000;

/**
 * Draws `series`, keys of the samples, each in the colour that the style gives it (`--series-1`, …).
 *
 * @param told `{unit, isWhole}`: what stands behind the numbers of the scale, and whether there are only whole ones.
 */
export function draw(canvas, samples, series, told = {}) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (width === 0) return;
  // Setting the size also clears the canvas.
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name);
  const box = { left: 46, right: width - 5, top: 9, bottom: height - 18 };
  const now = samples.at(-1)?.at ?? 0;
  const values = samples.flatMap((sample) => series.map((key) => sample[key] ?? 0));
  const max = roundUp(Math.max(told.isWhole ? 2 : 0, ...values));
  drawScale(context, box, max, { line: color("--line"), text: color("--muted") }, told);
  const x = (at) => box.right - ((now - at) / WINDOW) * (box.right - box.left);
  const y = (value) => box.bottom - (value / max) * (box.bottom - box.top);
  series.forEach((key, i) => {
    const ink = { color: color(`--series-${i + 1}`), isFilled: series.length === 1 };
    for (const run of runs(samples, key)) {
      drawRun(context, run.map((sample) => [x(sample.at), y(sample[key])]), box, ink);
    }
  });
}

/** A round number not below `value`, so that the scale does not jump with each sample. */
function roundUp(value) {
  if (value <= 0) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((factor) => factor * step).find((candidate) => candidate >= value * 0.999);
}

function drawScale(context, box, max, colors, { unit = "", isWhole }) {
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  context.strokeStyle = colors.line;
  context.fillStyle = colors.text;
  context.textBaseline = "middle";
  context.textAlign = "right";
  const label = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 2 });
  for (const value of [0, max / 2, max]) {
    const y = Math.round(box.bottom - (value / max) * (box.bottom - box.top)) + 0.5;
    context.beginPath();
    context.moveTo(box.left, y);
    context.lineTo(box.right, y);
    context.stroke();
    // Half a client would be an odd thing to mark.
    if (!isWhole || Number.isInteger(value)) context.fillText(label.format(value) + (value > 0 ? unit : ""), box.left - 6, y);
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

function drawRun(context, points, box, { color, isFilled }) {
  context.save();
  // What is older than the window leaves it by the left edge.
  context.beginPath();
  context.rect(box.left, 0, box.right - box.left + 5, box.bottom + 2);
  context.clip();
  context.beginPath();
  points.forEach(([x, y], i) => (i === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = 1.75;
  context.lineJoin = "round";
  context.stroke();
  if (isFilled) {
    context.lineTo(points.at(-1)[0], box.bottom);
    context.lineTo(points[0][0], box.bottom);
    context.globalAlpha = 0.13;
    context.fill();
    context.globalAlpha = 1;
  }
  // A sample alone would not be seen as a line.
  if (points.at(-1)[0] === box.right || points.length === 1) {
    context.beginPath();
    context.arc(...points.at(-1), 2.5, 0, 2 * Math.PI);
    context.fill();
  }
  context.restore();
}
