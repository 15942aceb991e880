"""A small corpus of our own, so that tests of the language-model benchmark take seconds."""

import json
import random

import pytest

_TEXT = "the a model learns data from text and bytes while we wait for results of small tests in every run"
WORDS = _TEXT.split()


def _prose(rng, sentences=30):
    return " ".join(
        " ".join(rng.choices(WORDS, k=8)).capitalize() + f" {rng.randrange(999)}." for _ in range(sentences)
    )


def noise(rng, size=1500):
    return "".join(rng.choices("0123456789;,#", k=size))


@pytest.fixture(scope="session")
def prose():
    """``prose(random, sentences)``: text that nothing else holds."""
    return _prose


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory):
    rng = random.Random(0)
    rows = [{"text": _prose(rng), "source": "prose"} for _ in range(150)]
    rows += [{"text": noise(rng), "source": "noise"} for _ in range(60)]
    rows += rows[:15]  # exact duplicates
    rows += [{"text": r["text"] + " One more sentence.", "source": "copies"} for r in rows[20:50]]  # near-duplicates
    rng.shuffle(rows)
    path = tmp_path_factory.mktemp("corpus") / "small.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")
