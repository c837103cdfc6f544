// One HTTP/2 connection, over TLS, by Node's own client: takes commands as lines of JSON, and prints what happens as such.
//
//   node http2.mjs URL CERTIFICATE     prints {"protocol":"h2"} when it is connected
//   {"ask":ID,"headers":{…},"body":""} → {"id":ID,"head":[[NAME,VALUE]…]}, {"id":ID,"text":…}…, {"id":ID,"end":"clean"}
//   {"reset":ID}                       gives a stream up
//   {"pause":ID}, {"resume":ID}        does not read a stream, and does again
//   {"cut":true}                       breaks the connection

import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { createInterface } from 'node:readline';
import tls from 'node:tls';

const say = (what) => console.log(JSON.stringify(what));
const [url, certificate] = process.argv.slice(2);
const { hostname, port } = new URL(url);
const ca = readFileSync(certificate);
const socket = tls.connect({ host: hostname, port, servername: hostname, ca, ALPNProtocols: ['h2'] });
const session = http2.connect(url, { createConnection: () => socket });
// A stream that is not read does not take the room of the others.
session.on('connect', () => {
  session.setLocalWindowSize(1 << 28);
  say({ protocol: session.alpnProtocol });
});
session.on('error', (error) => console.error(`http2: ${error}`));
session.on('close', () => say({ closed: true }));
const streams = new Map();

function ask(id, headers, body) {
  const stream = session.request(headers, { endStream: body === undefined });
  streams.set(id, stream);
  stream.setEncoding('utf8');
  stream.on('response', (_, __, raw) => {
    const head = [];
    for (let at = 0; at < raw.length; at += 2) head.push([raw[at], String(raw[at + 1])]);
    say({ id, head });
  });
  stream.on('data', (text) => say({ id, text }));
  stream.on('error', () => {});
  const end = () => (stream.rstCode === 0 && stream.readableEnded ? 'clean' : `code ${stream.rstCode}`);
  stream.on('close', () => say({ id, end: end() }));
  if (body !== undefined) stream.end(body);
}

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const command = JSON.parse(line);
  if ('ask' in command) ask(command.ask, command.headers, command.body);
  else if ('reset' in command) streams.get(command.reset).close(http2.constants.NGHTTP2_CANCEL);
  else if ('pause' in command) streams.get(command.pause).pause();
  else if ('resume' in command) streams.get(command.resume).resume();
  else if (command.cut) socket.destroy();
});
lines.on('close', () => process.exit(0));
