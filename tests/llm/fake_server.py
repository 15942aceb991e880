"""A small OpenAI-compatible server of our own: it samples answers from the request's JSON schema, or misbehaves."""

from __future__ import annotations

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GARBAGE = "I think we should improve everything."


def sample(schema, rng):
    """A random value that satisfies the schema (the subset that the engine uses)."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        return {name: sample(part, rng) for name, part in schema["properties"].items()}
    if kind == "array":
        return [sample(schema["items"], rng) for _ in range(rng.randint(1, min(4, schema["maxItems"])))]
    if kind == "string":
        words = " ".join(rng.choices(["wider", "layers", "help", "small", "models", "<b>bold</b>"], k=6))
        return words[: schema.get("maxLength", 100)]
    if kind == "integer":
        return rng.randint(schema["minimum"], schema["maximum"])
    if kind == "number":
        return rng.uniform(schema["minimum"], schema["maximum"])
    raise ValueError(schema)


class FakeServer:
    """``mode``: ok, garbage, length, ignore_schema (JSON of another shape), html.

    ``fail_first``: that many requests get a 503. ``max_n``: more completions per call are a 400, as at llama.cpp;
    ``ignore_n``: always one completion.
    """

    def __init__(self, mode="ok", fail_first=0, max_n=None, ignore_n=False):
        self.mode, self.fail_first, self.max_n, self.ignore_n = mode, fail_first, max_n, ignore_n
        self.requests = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.reply(self, 200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.answer(self, body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @staticmethod
    def reply(handler, status, value):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "text/html" if isinstance(value, bytes) else "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def answer(self, handler, body):
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
        n = body.get("n", 1)
        if number <= self.fail_first:
            return self.reply(handler, 503, {"error": {"message": "loading model", "code": 503}})
        if self.max_n is not None and n > self.max_n:
            message = f"Field 'n' must be <= {self.max_n}"
            return self.reply(handler, 400, {"error": {"message": message, "code": 400}})
        if self.mode == "html":
            return self.reply(handler, 200, b"<html>gateway</html>")
        choices = []
        for i in range(1 if self.ignore_n else n):
            rng = random.Random(body["seed"] * 1000 + i)
            text = json.dumps(sample(body["response_format"]["json_schema"]["schema"], rng))
            text = {"garbage": GARBAGE, "ignore_schema": '{"answer": 42}'}.get(self.mode, text)
            choices.append(
                {
                    "index": i,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "length" if self.mode == "length" else "stop",
                }
            )
        usage = {"prompt_tokens": 10, "completion_tokens": 5 * len(choices), "total_tokens": 10 + 5 * len(choices)}
        return self.reply(handler, 200, {"id": "x", "object": "chat.completion", "choices": choices, "usage": usage})
