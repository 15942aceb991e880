"""A scripted proposer behind the OpenAI-compatible protocol: it knows the synthetic landscape's optimum.

For `search_efficiency.py`: an upper bound that shows whether the engine's machinery carries good ideas. It picks, among
the changes that a request allows, one that moves the parent towards the optimum; a share of its answers is random.
"""

import json
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from asi_evolve.domains.synthetic import SyntheticBenchmark

_RANDOM = 0.25  # share of changes that are drawn at random
_BENCHMARK = SyntheticBenchmark()
_OPTIMUM = _BENCHMARK.optimum()
_DOMAINS = {d.name: d for d in _BENCHMARK.domains()}


def _parse(domain, name, text):
    schema = _DOMAINS[domain].space[name].schema()
    if "enum" in schema:
        return next(v for v in schema["enum"] if str(v) == text)
    return int(text) if schema["type"] == "integer" else float(text)


def _loss(domain, params):
    """Of one domain's parameters, with the others at the optimum."""
    triple = {**_OPTIMUM, domain: params}
    return SyntheticBenchmark.loss(*(triple[n] for n in ("architecture", "algorithm", "data")))


def _design(schema, user, rng):
    domain = re.search(r"Propose one change to the (\w+) domain", user).group(1)
    shown = user.split("The parent you change is", 1)[1]
    names = [p.name for p in _DOMAINS[domain].space]
    params = {n: _parse(domain, n, re.search(rf"^{n} = (.+)$", shown, re.M).group(1)) for n in names}
    here = _loss(domain, params)
    options = list(schema["properties"]["change_1"]["enum"])
    gains = {}
    for option in options:
        name, _, text = option.partition("=")
        gains[option] = here - _loss(domain, {**params, name: _parse(domain, name, text)})
    useful = [o for o in options if gains[o] > 0]
    if rng.random() < _RANDOM or not useful:
        first = rng.choice(options)
    else:
        first = rng.choices(useful, weights=[gains[o] for o in useful])[0]
    others = [o for o in useful if o.partition("=")[0] != first.partition("=")[0]]
    second = max(others, key=gains.get) if others and rng.random() < 0.5 else "none"
    answer = {
        "statement": f"{first} moves {domain} towards its optimum.",
        "change_1": first,
        "change_2": second,
        "metric": "loss",
        "direction": "decrease",
        "minimum_effect": "0.5%",
    }
    if "tests" in schema["properties"]:
        answer["tests"] = "new"
    return answer


def _analyze(schema, user, rng):
    """What the facts say, read off their first lines (best candidate first)."""
    properties = schema["properties"]
    facts = re.findall(r"^(C\d+) \((\w+), isolated\)", user.split("Results of cycle", 1)[1], re.M)
    order = list(dict.fromkeys([d for _, d in facts if d in _DOMAINS]))
    wanted = " > ".join(order + [d for d in properties["helped"]["enum"] if d not in order])
    compared = f"{facts[0][0]} better than {facts[-1][0]}" if len(facts) > 1 else "none"
    answer = {
        "interpretation": "Changes towards the optimum helped.",
        "best": facts[0][0] if facts else "none",
        "helped": order[0] if order else rng.choice(properties["helped"]["enum"]),
        "comparison": compared,
        "because": rng.choice(properties["because"]["enum"]),
        "priority": wanted,
        "retire": "none",
        "new_statement": "",
        "new_domain": order[0] if order else properties["new_domain"]["enum"][0],
    }
    return {k: v if "enum" not in properties[k] or v in properties[k]["enum"] else rng.choice(properties[k]["enum"])
            for k, v in answer.items()}  # fmt: skip


class Oracle:
    """The server; a context. ``url`` is its base URL. Answers depend on the request and its seed alone."""

    def __init__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer._reply(self, {"object": "list", "data": [{"id": "oracle", "object": "model"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer._reply(self, outer._complete(body))

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
    def _reply(handler, value):
        data = json.dumps(value).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    @staticmethod
    def _complete(body):
        schema = body["response_format"]["json_schema"]["schema"]
        user = body["messages"][-1]["content"]
        make = _design if "change_1" in schema["properties"] else _analyze
        rng = random.Random(f"{body.get('seed')} {user}")
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(a)}}
            for i, a in enumerate(make(schema, user, rng) for _ in range(body.get("n") or 1))
        ]
        usage = {"prompt_tokens": len(user) // 4, "completion_tokens": 60 * len(choices), "total_tokens": 0}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "oracle",
            "choices": choices,
            "usage": usage,
        }
