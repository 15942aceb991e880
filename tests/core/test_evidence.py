"""Tests of hypotheses: p values, the false-discovery control, verdicts."""

import math

import numpy as np
import pytest
from scipy import stats

from asi_evolve.evidence import FalseDiscoveryControl, _weight, measure, verdict

PREDICTION = {"metric": "loss", "direction": "decrease", "minimum_effect": 0.01}


def test_p_values_are_those_of_the_t_test():
    values = [0.03, 0.01, 0.05, 0.02]
    effect = measure(values, None)
    assert effect.p_value == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue)
    assert effect.interval.mean == pytest.approx(np.mean(values))
    single = measure([0.03], (0.01, 7))
    assert single.p_value == pytest.approx(stats.t.sf(3, 7))
    assert measure([0.03], None).p_value is None


def test_weights_add_up_to_at_most_one():
    total = sum(_weight(j) for j in range(1, 200_000))
    assert 0.3 < total <= 1
    assert all(_weight(j) > _weight(j + 1) > 0 for j in range(1, 200))


def test_levels_by_hand():
    """Ramdas et al. 2017, equation 4, with wealth W0 = rate / 2."""
    control = FalseDiscoveryControl(0.1)
    assert control.level() == pytest.approx(_weight(1) * 0.05)
    assert not control.test(0.5)
    assert control.test(0.0)  # the second test is the first discovery
    assert control.level() == pytest.approx(_weight(3) * 0.05 + _weight(1) * 0.05)
    assert control.test(0.0)
    assert control.level() == pytest.approx(_weight(4) * 0.05 + _weight(2) * 0.05 + _weight(1) * 0.1)
    again = FalseDiscoveryControl(0.1).replay([0.5, 0.0, 0.0])
    assert again.level() == control.level()


@pytest.mark.parametrize("share_true", [0.0, 0.2, 0.6])
def test_the_rate_holds_over_many_runs(share_true):
    rng = np.random.default_rng(1)
    false_shares, found, real = [], 0, 0
    for _ in range(300):
        control = FalseDiscoveryControl(0.1)
        true = rng.random(60) < share_true
        p_values = stats.norm.sf(rng.normal(np.where(true, 4.0, 0.0), 1))
        discovered = np.array([control.test(p) for p in p_values])
        false_shares.append((discovered & ~true).sum() / max(1, discovered.sum()))
        found += (discovered & true).sum()
        real += true.sum()
    assert np.mean(false_shares) <= 0.1 + 3 * np.std(false_shares) / math.sqrt(300)
    if share_true:
        assert found / real > 0.4  # and it does find what is there


def test_verdicts():
    level = 0.05
    said = lambda values, noise=None: verdict(measure(values, noise), level, PREDICTION)  # noqa: E731
    assert said([0.05, 0.06, 0.055])[0] == "supported"
    assert said([-0.05, -0.06, -0.055])[0] == "refuted"
    assert said([0.001, 0.002, 0.0015])[0] == "refuted"  # there, but less than predicted
    assert said([0.2, -0.2, 0.1])[0] == "inconclusive"
    assert said([0.05])[0] == "inconclusive"
    assert "not known yet" in said([0.05])[1]
    assert "p " in said([0.05, 0.06, 0.055])[1]
    assert verdict(measure([0.05, 0.06, 0.055], None), 1e-9, PREDICTION)[0] == "inconclusive"  # the level decides
