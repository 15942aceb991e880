"""The embedded model: llama.cpp's own OpenAI-compatible server (``xllamacpp``) on a free loopback port.

It runs in a process of its own: a crash of the server is an error of the run, not the end of the engine, and it dies
with the engine.
"""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from asi_evolve.config import LLMConfig
from asi_evolve.errors import LLMError
from asi_evolve.llm.base import Completion, Request
from asi_evolve.llm.models import MODELS, fetch
from asi_evolve.llm.server import ServerLLM

_START_SECONDS = 120.0
_SLOTS = 4


class EmbeddedLLM:
    """Starts the server, waits until it answers, stops it on :meth:`close`.

    Raises:
        LLMError: xllamacpp or the model is missing, or the server does not come up (with the end of its log).
    """

    def __init__(self, config: LLMConfig, log_path: str | None = None) -> None:
        self._config = config
        self._log_path = log_path
        self._process: subprocess.Popen[str] | None = None
        model = config.model or "smollm2"
        self._gguf = fetch(model)
        self.name = model if model in MODELS else self._gguf.name
        self._start()

    def _start(self) -> None:
        log = open(self._log_path, "a") if self._log_path else subprocess.DEVNULL  # noqa: SIM115
        command = [sys.executable, "-m", "asi_evolve.llm.embedded", str(self._gguf)]
        command += [str(self._config.threads), str(self._config.embedded_context), "0"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        if not isinstance(log, int):
            log.close()
        address = self._address()
        self._client = ServerLLM(f"{address}/v1", self.name, timeout=self._config.timeout, retries=self._config.retries)
        # The server process stays the engine's: `resume` starts another one.

    def _address(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._process.stdout], [], [], 0.2)
            if ready:
                line = self._process.stdout.readline()
                if line.startswith("http://"):
                    return line.strip()
                if not line:
                    break
        self.close()
        tail = ""
        if self._log_path:
            lines = Path(self._log_path).read_text(errors="replace").strip().splitlines()
            tail = f": {lines[-1]}" if lines else ""
        raise LLMError(f"embedded LLM: the server did not start with {self._gguf}{tail}")

    def complete(self, request: Request) -> list[Completion]:
        """See :class:`asi_evolve.llm.base.LLM`. A server that died is started once more."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        return self._client.complete(request)

    def close(self) -> None:
        """Stops the server."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(gguf: str, threads: int, context: int, port: int) -> None:
    """Runs the server in this process until standard input closes (the engine ended, however it ended)."""
    try:
        import xllamacpp
    except ImportError:
        raise SystemExit("xllamacpp is not installed: pip install 'asi-evolve-engine[embedded]'") from None
    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.model_alias = {Path(gguf).stem}
    params.port = port
    params.n_parallel = _SLOTS
    params.n_ctx = context
    params.kv_unified = True  # one window shared by the slots: a long prompt may use all of it
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = -1
    params.warmup = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which then closes our standard input
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
