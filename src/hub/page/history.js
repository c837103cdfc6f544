// What the hub has told of itself over the last minute, and what follows from it: rates, and how long things took.

import { PAUSE, WINDOW } from "./plots.js";

/** How much of the past a percentile is of: a second alone has too few events to tell much. */
const LOOK_BACK = 5_000;

const sum = (counts) => Object.values(counts).reduce((all, count) => all + count, 0);

/** The samples of the last minute. What is not known at a sample is a break in its curve. */
export class History {
  samples = [];

  /** Takes what the hub tells now, and returns the sample that it makes. */
  add(status, at = performance.now()) {
    const last = this.samples.at(-1);
    // Fewer than before: the hub was started again.
    const follows = last && at - last.at < PAUSE && status.published_total >= last.counts.published;
    if (!follows) this.samples = this.samples.map((sample) => ({ ...sample, counts: undefined }));
    const counts = { published: status.published_total, delivered: sum(status.delivered), buckets: status.delivery_seconds.buckets };
    const rate = (key) => (follows ? ((counts[key] - last.counts[key]) * 1000) / (at - last.at) : undefined);
    const earlier = this.samples.find((sample) => sample.counts && at - sample.at <= LOOK_BACK + 500);
    const took = earlier ? bucketsSince(earlier.counts.buckets, counts.buckets) : [];
    const sample = {
      at,
      counts,
      published: rate("published"),
      delivered: rate("delivered"),
      p50: percentile(took, 0.5),
      p99: percentile(took, 0.99),
      ...status.connections,
      queue: status.queue_depth,
      inFlight: status.in_flight,
    };
    this.samples.push(sample);
    this.samples = this.samples.filter((known) => at - known.at < WINDOW + PAUSE);
    return sample;
  }
}

/** What was added to a histogram's buckets, `[upper bound in seconds, how often it took no longer]`. */
function bucketsSince(before, now) {
  return now.map(([bound, count], i) => [bound ?? Infinity, count - before[i][1]]);
}

/** The milliseconds that a share of what is in the buckets took at most, as exactly as buckets tell. */
export function percentile(buckets, share) {
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return undefined;
  const rank = share * total;
  let [lower, below] = [0, 0];
  for (const [bound, count] of buckets) {
    // The last bucket has no end: its begin is all that can be said.
    if (count >= rank) return 1000 * (bound === Infinity ? lower : lower + ((bound - lower) * (rank - below)) / (count - below));
    [lower, below] = [bound, count];
  }
  return undefined;
}
