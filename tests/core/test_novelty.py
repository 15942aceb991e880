import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_evolve import novelty
from asi_evolve.domains.synthetic import SyntheticBenchmark
from asi_evolve.novelty import Archive, Embedder, code_embedding


def by_definition(points, k, metric="l2"):
    x = np.asarray(points, np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        x = x / np.where(norms > 0, norms, 1)
        d = 1 - x @ x.T
    else:
        d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    np.fill_diagonal(d, np.inf)
    return np.sort(d, axis=1)[:, : min(k, len(x) - 1)].mean(axis=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 6), st.sampled_from(["l2", "cosine"]), st.booleans())
def test_novelties_stay_exact_while_the_archive_grows(seed, n, k, metric, duplicates):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3)).astype(np.float32)
    if duplicates:
        points[n // 2 :] = points[0]
    archive = Archive(3, k, metric)
    for i, p in enumerate(points):
        before = archive.novelty(p)
        assert archive.add(p) == pytest.approx(before, abs=1e-6)
        if i >= 1:
            expected = by_definition(points[: i + 1], k, metric)
            error = np.abs(archive.novelties() - expected).max()
            assert not (error > 2e-3 if metric == "l2" else error > 1e-5)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_filtered_archive_is_exact(metric, monkeypatch):
    """The filter of large archives, forced on small ones: clusters, outliers, duplicates, and points far outside."""
    monkeypatch.setattr(novelty, "_FLAT", 40)
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(12, 30))
    points = centres[rng.integers(12, size=700)] + 0.05 * rng.normal(size=(700, 30))
    points[100:120] = points[0]
    points[300] *= 1e4
    points[500:520] *= 30
    points[600] = 0
    archive = Archive(30, 4, metric)
    used = 0
    for i, p in enumerate(points):
        before = archive.novelty(p)
        arrived, changed = archive.insert(p)
        assert arrived == pytest.approx(before, rel=1e-5, abs=1e-6)
        assert i not in changed
        used += archive._filter is not None
    assert used > 600
    expected = by_definition(points[:700], 4, metric)
    error = np.abs(archive.novelties() - expected) / np.maximum(1.0, expected)
    assert not (error.max() > 1e-4)
    nearest, distance = archive.nearest(points[42] + 1e-4)
    assert nearest == 42
    assert distance < 0.01
    assert np.array_equal(archive.novelties([3, 5]), archive.novelties()[[3, 5]])


def test_the_filter_rules_most_members_out(monkeypatch):
    monkeypatch.setattr(novelty, "_FLAT", 500)
    rng = np.random.default_rng(5)
    archive = Archive(40, 3)
    for _ in range(2000):
        archive.add(rng.normal(size=12) @ np.eye(12, 40))
    found = archive._filter.members(archive._points[:2000], np.zeros(40, np.float32), 3, True)
    assert found is not None
    assert len(found) < 200


def test_changed_names_exactly_the_members_whose_novelty_changed():
    rng = np.random.default_rng(6)
    archive = Archive(3, 2)
    for p in rng.normal(size=(60, 3)):
        before = archive.novelties()
        _, changed = archive.insert(p)
        after = archive.novelties()[: len(before)]
        assert sorted(changed) == np.flatnonzero(before != after).tolist()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_saved_and_loaded_it_goes_on_as_before(metric, tmp_path):
    rng = np.random.default_rng(7)
    archive = Archive(5, 3, metric)
    for p in rng.normal(size=(50, 5)):
        archive.add(p)
    archive.save(tmp_path / "archive.npz")
    copy = Archive.load(tmp_path / "archive.npz")
    for p in rng.normal(size=(20, 5)):
        assert copy.add(p) == archive.add(p)
    assert np.array_equal(copy.novelties(), archive.novelties())
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="not a saved archive"):
        Archive.load(tmp_path / "broken.npz")


def test_a_gpu_answers_queries_where_faiss_has_one(monkeypatch):
    """No GPU here: FAISS's names for one are played by its CPU index."""
    import faiss

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, device, index: index, raising=False)
    rng = np.random.default_rng(8)
    gpu = Archive(6, 3)
    monkeypatch.undo()
    cpu = Archive(6, 3)
    for p in rng.normal(size=(80, 6)):
        assert gpu.novelty(p) == pytest.approx(cpu.novelty(p), rel=1e-5)
        gpu.add(p)
        cpu.add(p)
    assert gpu._gpu.ntotal == 80
    assert np.array_equal(gpu.novelties(), cpu.novelties())
    assert gpu.nearest(p)[0] == 79


def test_empty_and_single():
    archive = Archive(2, 3)
    assert archive.novelty([0, 0]) == np.inf
    assert archive.nearest([0, 0]) == (-1, np.inf)
    archive.add([3, 4])
    assert archive.novelty([0, 0]) == pytest.approx(5.0)
    assert archive.nearest([0, 0]) == (0, pytest.approx(5.0))
    assert archive.novelties()[0] == np.inf


@pytest.mark.parametrize("bad", [[1.0], [1.0, np.nan], [1.0, np.inf]])
def test_bad_points_are_refused_and_change_nothing(bad):
    archive = Archive(2)
    with pytest.raises(ValueError, match="x: "):
        archive.add(bad)
    assert len(archive) == 0


@pytest.mark.parametrize(("arguments", "message"), [((0,), "dim"), ((2, 0), "dim and k"), ((2, 1, "l1"), "metric")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Archive(*arguments)


def test_code_embedding_sees_code():
    a = "def f(x):\n    return x + 1\n"
    renamed = "def f(x):\n    return x + 2\n"
    other = "class A:\n    def __init__(self, width):\n        self.linear = nn.Linear(width, width)\n"
    e = [code_embedding(t) for t in (a, renamed, other)]
    assert np.linalg.norm(e[0] - e[1]) < np.linalg.norm(e[0] - e[2])
    assert np.array_equal(code_embedding(a), e[0])
    assert not code_embedding("").any()


def test_candidates_that_differ_more_are_further_apart():
    benchmark = SyntheticBenchmark()
    domains = {d.name: d for d in benchmark.domains()}
    from asi_evolve import Candidate, Edit

    base = Candidate([d.baseline() for d in domains.values()])
    near = base.replace(domains["data"].apply(base.data, Edit(params={"filter": 0.1})))
    far = near.replace(domains["architecture"].apply(base.architecture, Edit(params={"mixer": "linear", "depth": 12})))
    phi = Embedder(domains, 1.0, 0.5)
    assert phi(base).shape == (phi.dim,)
    assert 0 < np.linalg.norm(phi(base) - phi(near)) < np.linalg.norm(phi(base) - phi(far))
