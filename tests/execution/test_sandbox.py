"""Each promise of the sandbox against code that tries to break it, at every level that contains."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from asi_evolve.errors import ConfigError, InvalidEdit
from asi_evolve.execution import Limits, Sandbox, describe_level, levels, procfs
from asi_evolve.execution.limits import MEBIBYTE

LEVELS = [level for level in ("bubblewrap", "landlock") if not levels._why_not(level)]
SMALL = Limits(wall_seconds=15, memory_bytes=512 * MEBIBYTE, processes=24, open_files=64, file_bytes=4 * MEBIBYTE)


@pytest.fixture(params=LEVELS)
def sandbox(request):
    return Sandbox(request.param, SMALL)


def run(sandbox, body, **arguments):
    options = {k: arguments.pop(k) for k in ("limits", "files", "read_only", "hidden", "on_progress") if k in arguments}
    source = "def attack(**given):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    return sandbox.run(source, "attack", arguments, **options)


def alive(marker):
    """Processes whose command line or environment-free name holds the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def below_me():
    return [p for p in procfs.descendants(os.getpid()) if procfs.start_time(p) is not None]


def test_this_machine_contains():
    assert "bubblewrap" in LEVELS or "landlock" in LEVELS, describe_level("auto")


# -- what works -------------------------------------------------------------------------------------------------------


def test_values_and_arrays_come_back(sandbox):
    given = {"x": [1, 2.5, "ü", None, True], "a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": b"\0\xff"}
    result = run(sandbox, "return {**given, 'sum': given['a'].sum(), '$k': (1, 2)}", **given)
    assert result.ok, result.error
    assert result.value["x"] == given["x"]
    assert result.value["b"] == given["b"]
    assert result.value["$k"] == [1, 2]
    assert result.value["sum"] == 15
    assert result.value["a"].dtype == np.float32
    np.testing.assert_array_equal(result.value["a"], given["a"])


def test_output_and_usage(sandbox):
    result = run(
        sandbox,
        """
        import sys, time
        print("out"); print("err", file=sys.stderr)
        block = bytearray(100 << 20)
        end = time.process_time() + 0.5
        while time.process_time() < end: pass
        """,
    )
    assert result.ok
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert 0.4 < result.usage.cpu_seconds < 3
    assert result.usage.wall_seconds >= result.usage.cpu_seconds * 0.9
    assert 100 << 20 < result.usage.max_rss_bytes < 300 << 20


def test_an_exception_is_an_error_with_the_candidates_traceback(sandbox):
    result = sandbox.run("def f(x):\n    y = x\n    return 1 / y\n", "f", {"x": 0})
    assert result.status == "error"
    assert "return 1 / y" in result.error
    assert "line 3, in f" in result.error
    assert "execution" not in result.error


def test_missing_entry_syntax_error_and_exit(sandbox):
    assert "no function 'g'" in sandbox.run("def f(): pass", "g", {}).error
    assert "SyntaxError" in sandbox.run("def f(:", "f", {}).error
    assert sandbox.run("import sys\ndef f(): sys.exit(0)", "f", {}).status == "error"


def test_files_progress_and_threads(sandbox):
    seen = []
    result = run(
        sandbox,
        """
        import os
        from helpers.deep import value
        from asi_evolve.execution import progress
        progress(0.25, "a"); progress(7.0, "end")
        return [value, os.environ["OMP_NUM_THREADS"], open("note.txt").read()]
        """,
        files={"helpers/deep.py": "value = 42\n", "note.txt": "hé"},
        on_progress=lambda *message: seen.append(message),
        limits=Limits(wall_seconds=15, threads=3),
    )
    assert result.value == [42, "3", "hé"], result.error
    assert seen[0] == (0.25, "a")
    assert seen[-1] == (1.0, "end")


def test_read_only_paths(sandbox, tmp_path):
    (tmp_path / "data.txt").write_text("42")
    (tmp_path / "secret.txt").write_text("43")
    body = """
    def attempt(mode, name):
        try:
            with open(given["at"] + "/" + name, mode) as file: return file.read() if mode == "r" else "written"
        except OSError as error: return type(error).__name__
    return [attempt("r", "data.txt"), attempt("w", "data.txt"), attempt("w", "new.txt"), attempt("r", "secret.txt")]
    """
    result = run(sandbox, body, at=str(tmp_path), read_only=[str(tmp_path)], hidden=[str(tmp_path / "secret.txt")])
    assert result.value[0] == "42"
    assert all(v in ("OSError", "PermissionError") for v in result.value[1:]), result.value
    assert (tmp_path / "data.txt").read_text() == "42"


def test_bad_arguments():
    with pytest.raises(ConfigError, match="auto, bubblewrap"):
        Sandbox("docker")
    with pytest.raises(ValueError, match="wall_seconds"):
        Limits(wall_seconds=0)
    with pytest.raises(InvalidEdit):
        Sandbox(LEVELS[0]).run("def f(): pass", "f", {}, files={"../x": ""})
    assert describe_level("auto")["level"] == LEVELS[0]
    assert describe_level("none")["level"] == "none"


# -- files and secrets ------------------------------------------------------------------------------------------------


def test_host_files_and_secrets_are_out_of_reach(sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    secret = tmp_path / "held-out.txt"
    secret.write_text("held out")
    home_secret = Path.home() / f".asi-evolve-test-{os.getpid()}"
    home_secret.write_text("home")
    try:
        result = run(
            sandbox,
            """
            import os, glob
            got = []
            for path in given["paths"] + glob.glob("/proc/*/environ"):
                try:
                    with open(path, "rb") as file: got.append((path, file.read(200).decode("latin1")))
                except OSError: pass
            return [got, dict(os.environ), os.listdir(".")]
            """,
            paths=["/etc/shadow", "/etc/passwd", str(secret), str(home_secret), f"/proc/{os.getpid()}/cmdline"],
        )
    finally:
        home_secret.unlink()
    assert result.ok, result.error
    got, environment, _ = result.value
    assert not [path for path, _ in got if not path.startswith("/proc/")]
    assert "sk-very-secret" not in str(got) + str(environment)
    assert "OPENAI_API_KEY" not in environment


def test_nothing_outside_the_scratch_directory_can_be_written(sandbox, tmp_path):
    places = [str(tmp_path), str(Path.home()), "/usr", "/etc", "/", "/dev", sys.prefix, sys.base_prefix, "/var/tmp"]
    places.append(os.path.dirname(levels.__file__))
    result = run(
        sandbox,
        """
        import os
        done = []
        for place in given["places"]:
            try:
                with open(place + "/intruder", "w") as file: file.write("x")
                done.append(place)
            except OSError: pass
            try:
                os.mkdir(place + "/intruder.d")
                done.append(place)
            except OSError: pass
        open("scratch.txt", "w").write("x")
        return done
        """,
        places=places,
    )
    assert result.value == [], result.error
    assert not [p for p in places if os.path.exists(p + "/intruder")]


def test_scratch_is_private_and_limited():
    sandbox = Sandbox(LEVELS[0], SMALL)
    big = run(sandbox, "open('big', 'wb').write(bytes(8 << 20))")
    assert big.status in ("error", "crash"), big
    assert run(sandbox, "import os; return [n for n in os.listdir('.') if os.path.isfile(n)]").value == []
    if LEVELS[0] == "bubblewrap":
        limits = Limits(wall_seconds=15, scratch_bytes=8 * MEBIBYTE)
        full = run(sandbox, "for i in range(20): open(str(i), 'wb').write(bytes(1 << 20))", limits=limits)
        assert "No space left" in full.error
        shared = run(sandbox, "open('/dev/shm/x', 'wb').write(bytes(20 << 20))", limits=limits)
        assert shared.status == "error"


def test_symlinks_do_not_lead_out(sandbox, tmp_path):
    (tmp_path / "secret").write_text("s")
    body = """
    import os
    os.symlink(given["to"], "link")
    try: return open("link").read()
    except OSError as error: return type(error).__name__
    """
    assert run(sandbox, body, to=str(tmp_path / "secret")).value in ("FileNotFoundError", "PermissionError")


# -- network ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A TCP server of ours on the loopback interface, and an abstract and a file-system Unix socket."""
    tcp = socket.create_server(("127.0.0.1", 0))
    yield tcp.getsockname()[1]
    tcp.close()


def test_no_sockets_at_all(sandbox, server):
    result = run(
        sandbox,
        """
        import socket
        done = []
        for family, kind in ((2, 1), (2, 2), (10, 1), (1, 1), (1, 2), (16, 3), (17, 3)):
            try:
                socket.socket(family, kind)
                done.append([family, kind])
            except OSError: pass
        try:
            socket.create_connection(("127.0.0.1", given["port"]), 2)
            done.append("loopback")
        except OSError: pass
        try:
            socket.getaddrinfo("example.com", 80)
            done.append("dns")
        except OSError: pass
        a, b = socket.socketpair()
        a.send(b"x")
        return [done, b.recv(1) == b"x"]
        """,
        port=server,
    )
    assert result.value == [[], True], result.error


@pytest.mark.skipif("bubblewrap" not in LEVELS, reason="needs user namespaces")
def test_the_network_namespace_holds_without_the_system_call_filter(server, monkeypatch):
    monkeypatch.setattr("asi_evolve.execution.seccomp.available", lambda: False)
    result = run(
        Sandbox("bubblewrap", SMALL),
        """
        import socket
        devices = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
        try:
            socket.create_connection(("127.0.0.1", given["port"]), 2)
            reached = True
        except OSError: reached = False
        return [devices, reached]
        """,
        port=server,
    )
    assert result.value == [["lo"], False], result.error


def test_dangerous_system_calls_are_denied(sandbox):
    result = run(
        sandbox,
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        allowed = []
        def call(name, *arguments):
            if getattr(libc, name)(*arguments) != -1: allowed.append(name)
        call("ptrace", 0, 0, 0, 0)
        call("unshare", 0x10000000)
        call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
        call("umount2", b"/tmp", 0)
        call("chroot", b"/tmp")
        call("personality", 0x0040000)
        # keyctl, bpf, perf_event_open, io_uring_setup, userfaultfd, unshare, setns (x86-64)
        for number in (250, 321, 298, 425, 323, 272, 308):
            if libc.syscall(number, 0, 0, 0, 0, 0) != -1: allowed.append(number)
        return [allowed, open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0]]
        """,
    )
    assert result.value == [[], "1"], result.error


# -- processes --------------------------------------------------------------------------------------------------------


def test_host_processes_cannot_be_seen_or_signalled(sandbox):
    victim = subprocess.Popen(["sleep", "60"])
    try:
        result = run(
            sandbox,
            """
            import os
            done = []
            for target in [given["victim"], given["me"], os.getppid()]:
                try:
                    os.kill(target, 9); done.append(target)
                except OSError: pass
            return done
            """,
            victim=victim.pid,
            me=os.getpid(),
        )
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    # Inside a PID namespace the parent is the namespace's own init, which a signal from inside does not kill.
    assert result.status in ("ok", "crash"), result.error


def test_infinite_loop_that_ignores_signals(sandbox):
    began = time.monotonic()
    result = run(
        sandbox,
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
        while True: pass
        """,
        limits=Limits(wall_seconds=1.0),
    )
    assert result.status == "timeout"
    assert time.monotonic() - began < 4
    assert result.usage.cpu_seconds > 0.3


def test_cpu_time_limit(sandbox):
    result = run(sandbox, "while True: pass", limits=Limits(wall_seconds=20, cpu_seconds=1))
    assert result.status == "timeout"
    assert result.usage.wall_seconds < 10


def test_fork_bomb(sandbox):
    result = run(
        sandbox,
        """
        import os, time
        while True:
            try: os.fork()
            except OSError: time.sleep(0.01)
        """,
        limits=Limits(wall_seconds=5, processes=24, memory_bytes=1 << 30),
    )
    assert result.status in ("crash", "timeout"), result
    assert below_me() == []


def test_daemons_do_not_survive(sandbox):
    result = run(
        sandbox,
        """
        import os, time
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork(): os._exit(0)
                for fd in range(3): os.close(fd)
                while True: time.sleep(1)
        time.sleep(0.3)
        return "left them"
        """,
    )
    assert result.value == "left them", result.error
    assert below_me() == []


def test_stop_and_session_tricks_end_at_the_timeout(sandbox):
    result = run(sandbox, "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", limits=Limits(wall_seconds=1))
    assert result.status == "timeout"
    assert below_me() == []


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "return bytes(1 << 40)",
        "x = []\nwhile True: x.append(bytearray(16 << 20))",
        "import mmap\nm = mmap.mmap(-1, 2 << 30)\nfor i in range(0, 2 << 30, 4096): m[i] = 1",
        "import os\nfor _ in range(7):\n    if os.fork() == 0:\n        x = bytearray(b'x') * (100 << 20)\n"
        "        import time; time.sleep(60)\nimport time; time.sleep(60)",
    ],
    ids=["reserve", "fill", "shared", "children"],
)
def test_memory_bomb(sandbox, body):
    result = run(sandbox, body)
    assert result.status == "memory", result
    assert result.usage.max_rss_bytes < 900 * MEBIBYTE


# -- the channel ------------------------------------------------------------------------------------------------------


def test_flood_of_output(sandbox):
    result = run(
        sandbox,
        "import os\nfor _ in range(3000): os.write(1, b'x' * 100_000); os.write(2, b'y' * 1000)\nreturn 'done'",
    )
    assert result.value == "done", result
    assert len(result.stdout) == len(result.stderr) == sandbox.limits.output_bytes


def test_huge_result(sandbox):
    limits = Limits(wall_seconds=15, result_bytes=1 << 20)
    assert run(sandbox, "import numpy; return numpy.zeros(1 << 18)", limits=limits).status == "protocol"
    assert run(sandbox, "return 'x' * (40 << 20)", limits=limits).status in ("error", "protocol")


@pytest.mark.parametrize(
    "value", ["object()", "{1: 2}", "{'a': {1, 2}}", "__import__('numpy').array([object()])", "lambda: 0"]
)
def test_values_that_are_no_data(sandbox, value):
    result = run(sandbox, f"return {value}")
    assert result.status == "error"
    assert "FrameError" in result.error


def test_nesting_and_surrogates(sandbox):
    assert run(sandbox, "x = []\nfor _ in range(100_000): x = [x]\nreturn x").status == "error"
    assert run(sandbox, "return '\\ud800'").status in ("ok", "error")


# Finds the result channel as an attacker would, among the open descriptors.
FORGE = """
import os, struct, json, pickle
def write(data):
    for name in sorted(os.listdir('/proc/self/fd'), key=int):
        fd = int(name)
        if fd > 2:
            try: os.write(fd, data)
            except OSError: pass
"""


@pytest.mark.parametrize(
    "payload",
    [
        "pickle.dumps(os.system)",
        "b'ASE1' + struct.pack('<IQ', 10, 0) + b'not json!!'",
        "b'ASE1' + struct.pack('<IQ', 1 << 31, 0)",
        "b'ASE1' + struct.pack('<IQ', 10, 1 << 62)",
        "frame({'kind': 'result', 'value': {'$buffer': 5}, 'buffers': []})",
        "frame({'kind': 'result', 'value': {'$buffer': -1}, 'buffers': [['object', [1]]]})",
        "frame({'kind': 'result', 'value': 1, 'buffers': [['float64', [1 << 40]]]})",
        "frame({'kind': 'result', 'value': 1, 'buffers': [['float64', [-1]]]})",
        "frame({'kind': 'shell', 'value': 'id', 'buffers': []})",
        "frame([1])",
        "b'ASE1' + struct.pack('<IQ', 100, 0) + b'{'",
    ],
)
def test_forged_frames(sandbox, payload):
    frame = "def frame(x):\n    h = json.dumps(x).encode()\n    return b'ASE1' + struct.pack('<IQ', len(h), 0) + h\n"
    result = run(sandbox, f"{FORGE}\n{frame}\nwrite({payload})\nos._exit(0)")
    assert result.status == "protocol", result


def test_silent_exits(sandbox):
    assert run(sandbox, "import os; os._exit(0)").status == "protocol"
    exited = run(sandbox, "import os; os._exit(3)")
    assert (exited.status, "exit status 3" in exited.error) == ("crash", True)
    segfault = run(sandbox, "import ctypes; ctypes.string_at(0)")
    assert (segfault.status, "SIGSEGV" in segfault.error) == ("crash", True)
    closed = run(sandbox, "import os, time; os.closerange(3, 60); time.sleep(0.2)")
    assert closed.status in ("protocol", "crash")


def test_false_progress_is_not_passed_on(sandbox):
    seen = []
    run(
        sandbox,
        """
        import sys
        from asi_evolve.execution import reporting
        for _ in range(5000): reporting._sink("x" * 10, 5)
        """,
        on_progress=lambda *message: seen.append(message),
    )
    assert len(seen) == 0


def test_cancel_and_threads(sandbox):
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    began = time.monotonic()
    result = sandbox.run("def f():\n while True: pass", "f", {}, cancel=cancel)
    assert (result.status, result.error) == ("crash", "cancelled")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("level", LEVELS)
def test_a_killed_caller_leaves_nothing(level):
    marker = f"marker{os.getpid()}x{time.monotonic_ns()}"
    program = f"""
import sys
from asi_evolve.execution import Sandbox, Limits
source = '''
import os, subprocess, sys, time
def f():
    if os.fork() == 0:
        os.setsid()
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", "{marker}"])
        time.sleep(300)
    from asi_evolve.execution import progress
    time.sleep(0.5)
    progress(0.5)
    time.sleep(300)
'''
Sandbox({level!r}, Limits(wall_seconds=200)).run(source, "f", {{}}, on_progress=lambda *a: print("up", flush=True))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(levels.import_paths())}
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert caller.stdout.readline() == b"up\n"
    assert alive(marker)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    deadline = time.monotonic() + 5
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(marker) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_works_as_an_ordinary_user():
    place = Path(levels.__file__)
    if not os.access(place, os.R_OK) or any(not p.stat().st_mode & 0o5 for p in (place, *place.parents)):
        pytest.skip("this checkout is not readable by other users")
    if any(not Path(p).stat().st_mode & 0o5 for q in levels.python_paths() for p in Path(q).parents):
        pytest.skip("this Python is not readable by other users")
    code = "from asi_evolve.execution import Sandbox; print(Sandbox().run('def f(): return 7', 'f', {}))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(levels.import_paths()), "HOME": "/tmp"},
        user=65534,
        group=65534,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert "value=7" in out.stdout, out.stderr


@pytest.mark.parametrize("level", LEVELS)
def test_a_device_is_passed_through_only_when_asked_for(level):
    device = next((d for d in ("/dev/fuse", "/dev/kvm", "/dev/rtc0", "/dev/hwrng") if os.access(d, os.R_OK)), None)
    if device is None:
        pytest.skip("no device node of the right kind here")
    source = "import os\ndef f(path):\n    os.close(os.open(path, os.O_RDONLY))\n    return True"
    assert not Sandbox(level, Limits(wall_seconds=20)).run(source, "f", {"path": device}).ok
    assert Sandbox(level, Limits(wall_seconds=20), [device]).run(source, "f", {"path": device}).value is True


def test_what_is_no_device_is_refused(tmp_path):
    for path, what in (("/dev/no-such-device", "No such file"), ("/etc/passwd", "only character devices")):
        with pytest.raises(ConfigError, match=rf"sandbox\.devices: {path}: {what}"):
            Sandbox("none", devices=[path])
