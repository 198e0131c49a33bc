"""A proxy on loopback that does to answers what networks and gateways do: it drops, delays, cuts off and spoils them, by a seed."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler

from tests.support.serving import LENGTH, Server


def dropped(handler, answer):
    """The connection ends with a reset, before any answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def hung(handler, answer):
    """Nothing comes for longer than anybody waits."""
    time.sleep(handler.server.longest)
    handler.close_connection = True


def delayed(handler, answer):
    """The answer comes late."""
    time.sleep(0.05)
    whole(handler, answer)


def truncated(handler, answer):
    """The answer ends in its middle, and the connection with it."""
    status, headers, body = answer
    head(handler, status, headers, len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def shortened(handler, answer):
    """Half an answer, said to be a whole one."""
    status, headers, body = answer
    whole(handler, (status, headers, body[: len(body) // 2]))


def page(handler, answer):
    """A page of HTML with a status of success."""
    body = b"<html><body>please log in</body></html>"
    whole(handler, (200, [("Content-Type", "text/html")], body))


def malformed(handler, answer):
    """JSON that is none."""
    whole(handler, (200, [("Content-Type", "application/json")], b'{"outputs": [{"name": "z", "shape": [1,'))


def overloaded(handler, answer):
    whole(handler, (503, [], b'{"error": "no healthy upstream"}'))


def hurried(handler, answer):
    whole(handler, (429, [("Retry-After", "0")], b"slow down"))


def of_another(handler, answer):
    """The id of another request."""
    spoil(handler, answer, lambda told: told.update(id="another-7"))


def misshapen(handler, answer):
    """A row less than was asked for."""

    def change(told):
        shape = told["outputs"][0]["shape"]
        told["outputs"][0]["shape"] = [shape[0] + 1, *shape[1:]]

    spoil(handler, answer, change)


def of_other_type(handler, answer):
    """Numbers of another type than they are."""
    spoil(handler, answer, lambda told: told["outputs"][0].update(datatype="FP64"))


#: What takes an answer away; each must be asked for again.
LOSSES = (dropped, truncated, shortened, page, malformed, overloaded, hurried, of_another, misshapen, of_other_type)


def spoil(handler, answer, change):
    """The answer with its JSON changed, where it is one of inference."""
    status, headers, body = answer
    told = dict(headers)
    length = int(told.get(LENGTH, len(body)))
    try:
        record = json.loads(body[:length])
        change(record)
    except (ValueError, KeyError, IndexError):
        return whole(handler, answer)
    text = json.dumps(record).encode()
    if LENGTH in told:
        headers = [(k, str(len(text)) if k == LENGTH else v) for k, v in headers]
    return whole(handler, (status, headers, text + body[length:]))


def head(handler, status, headers, length):
    handler.send_response(status)
    for key, value in headers:
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def whole(handler, answer):
    status, headers, body = answer
    head(handler, status, headers, len(body))
    handler.wfile.write(body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart, and an acknowledgement may take 40 ms

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handed_on(None)

    def do_POST(self):
        self.handed_on(self.rfile.read(int(self.headers["Content-Length"])))

    def handed_on(self, body):
        proxy = self.server
        with proxy.lock:
            proxy.asked += 1
            fault = proxy.fault()
            proxy.counts[fault.__name__] += 1
        connection = http.client.HTTPConnection("127.0.0.1", proxy.to, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() in ("content-type", LENGTH.lower())]
            fault(self, (answer.status, kept, answer.read()))
        finally:
            connection.close()


@contextlib.contextmanager
def between(server, faults: Mapping, *, seed=0, after=0, longest=1.0) -> Iterator[Server]:
    """A proxy before a server, whose ``url`` it has; each fault comes with its share, and the first ``after`` answers are whole."""
    proxy = Server(("127.0.0.1", 0), Handler)
    rng, names, shares = random.Random(seed), list(faults), list(faults.values())
    proxy.to, proxy.lock, proxy.asked, proxy.counts, proxy.longest = server.server_port, threading.Lock(), 0, Counter(), longest
    left = 1.0 - sum(shares)

    def fault():
        return whole if proxy.asked <= after else rng.choices([*names, whole], [*shares, left])[0]

    proxy.fault = fault
    proxy.base = f"http://127.0.0.1:{proxy.server_port}"
    proxy.url = server.url.replace(server.base, proxy.base)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
