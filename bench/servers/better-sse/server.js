// better-sse on node:http: a session for each client, in the channel that it follows. `node server.js PORT`
// One process: a channel of better-sse lives in one, and it has no cluster.
import { createServer } from "node:http";
import { createChannel, createSession } from "better-sse";

const channels = new Map();

function channel(name) {
  let found = channels.get(name);
  if (!found) {
    found = createChannel();
    channels.set(name, found);
  }
  return found;
}

const server = createServer(async (request, response) => {
  const name = request.url.slice(request.url.lastIndexOf("/") + 1);
  if (request.method === "GET") {
    channel(name).register(await createSession(request, response));
    return;
  }
  const body = [];
  for await (const piece of request) body.push(piece);
  channel(name).broadcast(Buffer.concat(body).toString());
  response.writeHead(202, { "Content-Length": 0 }).end();
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
