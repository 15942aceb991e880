"""Published rules, likeness to a reference set, repetition limits and order of the data domain."""

from collections.abc import Sequence

import numpy as np
import pytest

from asi_evolve.candidate import Edit
from asi_evolve.domains.corpus_quality import reference_scores
from asi_evolve.domains.corpus_statistics import NAMES, statistics
from asi_evolve.domains.data import DataDomain
from asi_evolve.domains.data.pipeline import RULES, passes, rules
from asi_evolve.domains.data.windows import draw_windows, limited
from asi_evolve.errors import InvalidCandidate

PROSE = (
    b"The committee met to discuss the report that had been sent out. It was agreed that more time would be needed. "
    b"Members have asked for the figures, and they will be given with the minutes of the next meeting.\n"
)
GOOD = b"\n".join(PROSE.replace(b"report", f"report {i}".encode()) for i in range(3))


def table(*texts):
    columns = np.array([statistics(t) for t in texts])
    return {name: columns[:, i] for i, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (GOOD, {"c4", "gopher", "fineweb", "all"}),
        (GOOD + b"{}", {"gopher", "fineweb"}),  # C4 drops curly brackets
        (b"One sentence that ends.\nAnother.", set()),  # too few sentences, words and long lines
        (b"\n".join([PROSE] * 8), {"c4"}),  # the same line over and over
        (GOOD + b"\n- item" * 60, set()),  # a list: short lines, no punctuation, repeated
        (b"# " * 40 + GOOD, {"c4", "fineweb"}),  # symbols
        (b"0 1 2 3 4 5 6 7 8 9 " * 20 + b"the and.", {"fineweb"}),
    ],
)
def test_rules_do_what_their_papers_say(text, passed):
    s = table(text)
    assert {name for name in RULES if name != "none" and rules(s, name)[0]} == passed
    assert rules(s, "none")[0]


def test_statistics_behind_the_rules():
    s = {k: v[0] for k, v in table(b"- a b...\n- a b...\nThe 12 #cat. And!\n").items()}
    assert s["words"] == 10
    assert s["bullet_lines"] == pytest.approx(2 / 3)
    assert s["ellipsis_lines"] == pytest.approx(2 / 3)
    assert s["symbol_words"] == pytest.approx(3 / 10)
    assert s["repeated_bytes"] == pytest.approx(8 / 33)
    assert s["short_lines"] == 1
    assert s["full_stops"] == 4
    assert s["required_words"] == 2
    assert len(statistics(b"")) == len(NAMES)


@pytest.mark.parametrize("column", [0, 1])
def test_scores_tell_the_reference_from_the_rest_on_documents_never_seen(column):
    rng = np.random.default_rng(0)
    vocabulary = [b"meeting", b"report", b"figures", b"members", b"agreed", b"minutes", b"the", b"of", b"and"]
    prose = [b" ".join(rng.choice(vocabulary, 60)) for _ in range(60)]
    code = [b";".join(b"x%d=%d" % (a, b) for a, b in rng.integers(0, 99, (40, 2))) for _ in range(60)]
    texts = [t for pair in zip(prose, code, prose, code, strict=True) for t in pair]
    reference = np.array([True, False] * 120)
    reference[[0, 3]] = [False, True]  # a wrong label must not decide
    scores = reference_scores(texts, reference)[:, column]
    assert scores[::2].min() > scores[1::2].max()


def test_a_reference_of_everything_or_nothing_is_refused():
    for reference in (np.ones(6, bool), np.zeros(6, bool)):
        with pytest.raises(ValueError, match="cannot be told from the rest"):
            reference_scores([b"text %d" % i for i in range(6)], reference)


def test_likelihood_is_a_probability():
    """Summed over all next bytes it is one, whatever came before."""
    from asi_evolve.domains.corpus_quality import _Ngram

    model = _Ngram()
    for _ in range(3):
        model.add(GOOD)
    for start in (b"the", b"zzz"):
        total = sum(2 ** model.log_probability(start + bytes([b])) for b in range(256))
        assert total == pytest.approx(1.0, abs=0.05)  # hashing may add a little


def test_repeats_are_limited_where_there_is_room():
    share = np.array([0.7, 0.2, 0.1])
    assert limited(share, np.array([0.5, 0.3, 0.9])) == pytest.approx([0.5, 0.3, 0.2])
    assert limited(share, np.array([1.0, 1.0, 1.0])) == pytest.approx(share)
    assert limited(share, np.array([0.2, 0.2, 0.2])) == pytest.approx(share)  # no room


def test_windows_keep_to_repeats_and_order():
    text = np.repeat(np.array([1, 2, 3], np.uint8), [100, 1000, 4000])
    offsets, ids = np.array([0, 100, 1100, 5100]), np.zeros(3, np.int32)
    documents, weights = np.arange(3), np.array([100.0, 1.0, 1.0])
    arguments = (text, offsets, ids, documents, weights, 300, 10)
    free = draw_windows(*arguments, np.random.default_rng(0))
    assert (free[:, 0] == 1).mean() > 0.6
    held = draw_windows(*arguments, np.random.default_rng(0), max_repeats=2)
    assert (held[:, 0] == 1).sum() < 40  # 20 expected
    for order, expected in (("short_first", [1, 2, 3]), ("long_first", [3, 2, 1])):
        rows = draw_windows(*arguments, np.random.default_rng(0), order=order)[:, 0]
        assert list(dict.fromkeys(rows)) == expected


def test_language_is_a_filter():
    params = dict(DataDomain(languages=("en", "de")).baseline().params)
    statistics = dict.fromkeys(NAMES, np.ones(3)) | {"language": np.array(["en", "de", "und"])}
    assert passes(statistics, params).tolist() == [True, True, True]
    assert passes(statistics, params | {"language": "de"}).tolist() == [False, True, False]
    domain = DataDomain(languages=("en", "de"))
    with pytest.raises(InvalidCandidate, match="language: 'fr' is not one of 'any', 'en', 'de'"):
        domain.apply(domain.baseline(), Edit(params={"language": "fr"}))


def test_scores_do_not_depend_on_how_documents_are_held():
    class Once(Sequence):
        def __init__(self, texts):
            self.texts, self.reads = texts, 0

        def __len__(self):
            return len(self.texts)

        def __getitem__(self, i):
            self.reads += 1
            return self.texts[i]

    texts = [GOOD + bytes([65 + i]) * 9 for i in range(20)] + [b"x = {1: 2}" + bytes([65 + i]) * 9 for i in range(20)]
    reference = np.arange(40) < 20
    lazy = Once(texts)
    np.testing.assert_array_equal(reference_scores(lazy, reference), reference_scores(texts, reference))
    assert lazy.reads <= 3 * 41  # never kept
