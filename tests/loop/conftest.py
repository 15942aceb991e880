import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "llm")]


def engine(directory, log, recording, event=None, number=0):
    """Runs or resumes a campaign in a process of its own; returns the completed process."""
    command = [sys.executable, str(HERE / "engine_process.py"), str(directory), str(log), str(recording)]
    command += [event, str(number)] if event else []
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    """Recorded answers: what the schema-sampling server said in a whole campaign."""
    from engine_process import CONFIG, Counted
    from fake_server import FakeServer

    from asi_evolve import Engine

    directory = tmp_path_factory.mktemp("recorded")
    with FakeServer() as fake:
        llm = {"provider": "openai", "base_url": fake.url, "model": "fake"}
        Engine({**CONFIG, "llm": llm}, directory, benchmark=Counted(failure_rate=0.1)).run()
    return directory


@pytest.fixture(scope="session")
def run_engine():
    return engine
