"""A server of KServe v2 on loopback, true to the protocol and small: JSON and binary tensors, a token, TLS, a limit of rows."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

KINDS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "UINT8": np.uint8}
LENGTH = "Inference-Header-Content-Length"


@dataclass
class Model:
    """A function of rows, and what is told of it."""

    function: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]  # of a row
    outputs: int
    datatype: str = "FP32"
    answers: str = "FP32"
    batch: int = -1
    most: int | None = None  # rows of a request
    version: str = "1"
    input: str = "x"
    output: str = "z"
    inputs: list | None = None  # metadata in place of the true ones
    told_outputs: list | None = None


@dataclass
class Log:
    """What was asked of a server."""

    paths: list[str] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def onnx_function(path, output=None):
    """A file as a function of rows, on ONNX Runtime's CPU provider with one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None if output is None else [output], {name: rows})[0]


def metadata(name, m):
    inputs = [{"name": m.input, "datatype": m.datatype, "shape": [m.batch, *m.shape]}] if m.inputs is None else m.inputs
    outputs = (
        [{"name": m.output, "datatype": m.answers, "shape": [m.batch, m.outputs]}] if m.told_outputs is None else m.told_outputs
    )
    return {"name": name, "versions": [m.version], "platform": "onnxruntime_onnx", "inputs": inputs, "outputs": outputs}


def rows_of(head, body, m):
    """The rows of a request, or what is wrong with it."""
    (given,) = head["inputs"]
    shape, kind = given["shape"], KINDS[given["datatype"]]
    size = given.get("parameters", {}).get("binary_data_size")
    data = np.array(given["data"]) if size is None else np.frombuffer(body[:size], kind)
    if given["name"] != m.input or given["datatype"] != m.datatype or tuple(shape[1:]) != m.shape:
        raise ValueError(f"unexpected shape for input '{given['name']}', got {shape}")
    if m.most is not None and shape[0] > m.most:
        raise ValueError(f"inference request batch-size must be <= {m.most}")
    return data.astype(kind).reshape(shape)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart, and an acknowledgement may take 40 ms

    def log_message(self, *_):
        pass

    def send(self, status, body, headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refused(self):
        server = self.server
        with server.log.lock:
            server.log.paths.append(self.path)
            server.log.headers.append(dict(self.headers))
        if server.token is not None and self.headers.get("Authorization") != f"Bearer {server.token}":
            self.send(401, {"error": f"unauthorized, got {self.headers.get('Authorization')}"})
            return True
        return False

    def model(self):
        parts = self.path.strip("/").split("/")
        if parts[:2] != ["v2", "models"] or parts[2] not in self.server.models:
            self.send(404, {"error": f"Request for unknown model: {self.path}"})
            return None, None
        m = self.server.models[parts[2]]
        if parts[3:5] and parts[3] == "versions" and parts[4] != m.version:
            self.send(404, {"error": "unknown version"})
            return None, None
        return parts[2], m

    def do_GET(self):
        if self.refused():
            return
        if self.path == "/v2":
            extensions = ["binary_tensor_data"] if self.server.binary else []
            self.send(200, {"name": "testing", "version": "1.0", "extensions": extensions})
            return
        name, m = self.model()
        if m is None:
            return
        if self.path.endswith("/config"):
            if m.most is None:
                self.send(404, {"error": "no configuration"})
            else:
                self.send(200, {"name": name, "max_batch_size": m.most})
            return
        self.send(200, metadata(name, m))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused():
            return
        if self.path == "/v2/repository/index":
            self.send(200, [{"name": n, "state": "READY"} for n in self.server.models])
            return
        name, m = self.model()
        if m is None:
            return
        log = self.server.log
        with log.lock:
            log.under_way += 1
            log.most_under_way = max(log.most_under_way, log.under_way)
        try:
            self.infer(name, m, body)
        finally:
            with log.lock:
                log.under_way -= 1

    def infer(self, name, m, body):
        length = int(self.headers.get(LENGTH, len(body)))
        head = json.loads(body[:length])
        try:
            rows = rows_of(head, body[length:], m)
        except ValueError as error:
            self.send(400, {"error": str(error)})
            return
        with self.server.log.lock:
            self.server.log.rows.append(len(rows))
        with self.server.one_at_a_time:
            try:
                z = np.asarray(m.function(rows)).astype(KINDS[m.answers])
            except Exception as error:
                self.send(500, {"error": str(error)})
                return
        told = {"name": m.output, "datatype": m.answers, "shape": list(z.shape)}
        answer = {"model_name": name, "model_version": m.version, "id": head.get("id", ""), "outputs": [told]}
        wanted = head.get("outputs", [{}])[0].get("parameters", {}).get("binary_data")
        if not (wanted or head.get("parameters", {}).get("binary_data_output")):
            told["data"] = z.ravel().tolist()
            self.send(200, answer, [("Content-Type", "application/json")])
            return
        content = z.tobytes()
        told["parameters"] = {"binary_data_size": len(content)}
        text = json.dumps(answer).encode()
        self.send(200, text + content, [("Content-Type", "application/octet-stream"), (LENGTH, str(len(text)))])


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients that went away are no news."""


@contextlib.contextmanager
def served(models, *, binary=True, token=None, certificate=None) -> Iterator[Server]:
    """A server of these models by name, at ``server.url``; ``certificate`` is a PEM file with its key, for TLS."""
    server = Server(("127.0.0.1", 0), Handler)
    server.models, server.binary, server.token, server.log = models, binary, token, Log()
    server.one_at_a_time = threading.Lock()
    scheme, host = "http", "127.0.0.1"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme, host = "https", "localhost"
    server.base = f"{scheme}://{host}:{server.server_port}"
    server.url = f"{server.base}/v2/models/{next(iter(models))}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
