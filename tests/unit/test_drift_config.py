"""Each measure has limits, none is set by default, a failure comes after a warning."""

import pytest
from pydantic import ValidationError

from tasks.drift_config import MEASURES, NO_LIMITS, DriftConfig, Limit
from tasks.release_drift import judge


def test_every_measure_has_limits_and_every_limit_a_measure():
    assert tuple(DriftConfig.model_fields) == tuple(MEASURES)
    assert not NO_LIMITS.is_set
    assert DriftConfig(sources=Limit(warn=0.1)).is_set


def test_a_failure_does_not_come_before_the_warning():
    with pytest.raises(ValidationError, match="raise fail, so that a warning comes first"):
        Limit(warn=0.5, fail=0.2)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Limit(warn=-0.1)


def test_a_measure_is_held_against_both_limits_and_equal_is_within():
    limits = DriftConfig(
        replaced=Limit(warn=0.2, fail=0.5),
        lost=Limit(warn=0.2, fail=0.5),
        size=Limit(fail=0.5),
        sources=Limit(fail=0.0),
    )
    values = dict.fromkeys(MEASURES, 0.3) | {"lost": 0.51, "size": 0.5, "sources": None}
    found = {one.measure: one.outcome for one in judge(values, limits)}
    assert found["replaced"] == "warns"
    assert found["lost"] == "fails"
    assert found["size"] == "within"
    assert found["sources"] == "not measured"
    assert found["labels"] == "no limit"
