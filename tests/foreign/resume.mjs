// Follows a stream with the package `eventsource` and prints each event as a line of JSON. Ends when it is killed.

import { EventSource } from 'eventsource';

const source = new EventSource(process.argv[2]);
const names = ['message', '$welcome', '$gap', '$reset', '$lag', '$closing'];
for (const name of names) {
  source.addEventListener(name, ({ type, data }) => console.log(JSON.stringify({ event: type, data })));
}
source.addEventListener('error', ({ code, message }) => {
  console.error(`eventsource: ${code ?? 'no status'}, ${message ?? 'the stream has ended'}`);
  // It has given up, and would leave silently.
  if (source.readyState === EventSource.CLOSED) process.exit(1);
});
