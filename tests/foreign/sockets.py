"""Speaks to a server with the package `websockets`, and prints each thing that happens as a line of JSON.

    sockets.py follow URL CHANNEL   subscribes, and reads until the end; waits for a line before it reads on, if there is PAUSE
    sockets.py fragments URL        publishes in fragments, with a ping and its pong between them; then closes
    sockets.py breach URL KIND      breaks a rule, and reads the end
"""

import json
import os
import sys
from contextlib import contextmanager, suppress

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TOO_LARGE = "x" * ((1 << 20) + 1)


def say(what):
    print(json.dumps(what), flush=True)


@contextmanager
def opened(url, **options):
    # It offers permessage-deflate by itself.
    with connect(url, proxy=None, max_size=None, **options) as socket:
        say({
            "offered": socket.request.headers.get("Sec-WebSocket-Extensions"),
            "extensions": socket.response.headers.get("Sec-WebSocket-Extensions"),
            "subprotocol": socket.subprotocol,
        })
        yield socket


def read_to_end(socket):
    try:
        while True:
            say({"message": json.loads(socket.recv(timeout=30))})
    except ConnectionClosed as end:
        received = end.rcvd and [end.rcvd.code, end.rcvd.reason]
        sent = end.sent and [end.sent.code, end.sent.reason]
        say({"received": received, "sent": sent, "received_first": end.rcvd_then_sent})


def subscribe(socket, channel):
    say({"message": json.loads(socket.recv(timeout=30))})
    socket.send(json.dumps({"op": "subscribe", "ref": 1, "channels": [channel], "from": "earliest"}))
    say({"message": json.loads(socket.recv(timeout=30))})


def follow(url, channel):
    with opened(url, subprotocols=["chat", "fanfare.v1.json"]) as socket:
        subscribe(socket, channel)
        if "PAUSE" in os.environ:
            sys.stdin.readline()
        read_to_end(socket)


def fragments(url):
    message = json.dumps({"op": "publish", "ref": 2, "channel": "fragments", "data": "ä€𝄞" * 50}, ensure_ascii=False)

    # Cut within characters; before each next piece comes the pong to a ping.
    def pieces(socket):
        data = message.encode()
        for at in range(0, len(data), 7):
            yield data[at:at + 7]
            if not socket.ping(f"at {at}").wait(30):
                raise TimeoutError("no pong")
            say({"pong": at})

    with opened(url, subprotocols=["fanfare.v1.json"]) as socket:
        subscribe(socket, "fragments")
        socket.send(pieces(socket), text=True)
        for _ in range(2):
            say({"message": json.loads(socket.recv(timeout=30))})
        socket.close(4321, "that is all")
        read_to_end(socket)


BREACHES = {
    "not_json": ("{", True),
    "binary": (b"{}", False),
    "invalid_utf8": (b'{"op":"ping","ref":"\xff"}', True),
    "invalid_utf8_in_fragments": ([b'{"op":"ping","ref":"\xc3', b'"}'], True),
    "oversized": (TOO_LARGE, True),
    "oversized_in_fragments": ([TOO_LARGE[:600_000], TOO_LARGE[600_000:]], True),
}


def breach(url, kind):
    message, is_text = BREACHES[kind]
    with opened(url) as socket:
        say({"message": json.loads(socket.recv(timeout=30))})
        # It may be told of the end before it has sent all.
        with suppress(ConnectionClosed):
            socket.send(message, text=is_text)
        read_to_end(socket)


{"follow": follow, "fragments": fragments, "breach": breach}[sys.argv[1]](*sys.argv[2:])
