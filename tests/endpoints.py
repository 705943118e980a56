"""A real HTTP server in a thread that answers as a chat endpoint: well, late, with nonsense or not at all."""

import json
import math
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Seen:
    """What a server was asked, and how many requests it worked on at once."""

    bodies: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    times: list = field(default_factory=list)
    raw: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, raw, body, headers):
        self.raw.append(raw)
        self.headers.append({name.lower(): value for name, value in headers.items()})
        self.bodies.append(body)
        self.keys.append(headers.get("Authorization"))
        self.times.append(time.monotonic())
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)

    def user_texts(self):
        return [body["messages"][-1]["content"] for body in self.bodies]


@dataclass
class Response:
    """One answer of the server; `pieces` are sent `delay` seconds apart."""

    status: int = 200
    pieces: tuple = ()
    headers: dict = field(default_factory=dict)
    delay: float = 0.0


def said(text, finish="stop", first=None):
    """A chat completion; `first` maps the first token's alternatives to probabilities."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if first is not None:
        top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in first.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}] if top else []}
    data = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice]}
    return Response(pieces=(json.dumps(data).encode(),))


def failed(status, message="no", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, (json.dumps({"error": {"message": message}}).encode(),), names)


def script(*responses):
    """Answers in turn; the last one for ever."""
    left = list(responses)

    def answer(body):
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


class Answering(BaseHTTPRequestHandler):
    """Answers with what the server's `answer` makes of a request, and notes what it saw."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        seen, body = self.server.seen, json.loads(raw)
        with seen.lock:
            seen.note(raw, body, self.headers)
            response = self.server.answer(body)
        try:
            self._send(response)
        except OSError:
            self.close_connection = True
        finally:
            with seen.lock:
                seen.busy -= 1

    def _send(self, response):
        time.sleep(response.delay)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(sum(map(len, response.pieces))))
        self.end_headers()
        for piece in response.pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(response.delay)

    def log_message(self, *arguments):
        pass


@contextmanager
def server(answer):
    """(base URL, Seen) of a server; `answer` makes a Response from a request's JSON."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    httpd.daemon_threads = True
    httpd.answer, httpd.seen = answer, (seen := Seen())
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", seen
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


DRIPS = (
    b"HTTP/1.1 204 No Content\r\nx: " + b"y" * 200,
    b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + b" " * 200,
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 50,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 10,
)
"""Answers that never end: in their head, body, chunks, or before their head."""


@contextmanager
def dripping(answer, pause=0.02):
    """The base URL of a server that sends its one answer byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            with suppress(OSError), listening.accept()[0] as caller:
                for byte in answer:
                    caller.send(bytes([byte]))
                    time.sleep(pause)

        thread = threading.Thread(target=drip)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread.join()
