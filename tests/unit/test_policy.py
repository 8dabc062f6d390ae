from __future__ import annotations

from datetime import timedelta

import pytest

from celery_coord import ConfigurationError, Cooldown, Exclusive
from celery_coord.policy import cooldown_from, exclusive_from


@pytest.mark.parametrize("ttl", [0, -1, "30", None.__class__, True, float("nan"), float("inf"), timedelta(0), 0.01])
def test_a_ttl_that_is_no_length_of_time_is_refused_where_it_is_written(ttl: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Exclusive\(ttl=30\)"):
        Exclusive(ttl=ttl)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, -5, "60", float("nan"), timedelta(seconds=-1), [60]])
def test_a_cooldown_that_is_no_length_of_time_is_refused_where_it_is_written(length: object) -> None:
    with pytest.raises(ConfigurationError, match="write cooldown=60"):
        cooldown_from(length)


def test_true_is_no_cooldown() -> None:
    with pytest.raises(ConfigurationError, match="write cooldown=60"):
        cooldown_from(True)


@pytest.mark.parametrize("value", ["yes", 1, 30, {"ttl": 30}])
def test_exclusive_is_a_yes_a_no_or_a_policy(value: object) -> None:
    with pytest.raises(ConfigurationError, match="exclusive=True"):
        exclusive_from(value)


def test_a_conflict_can_only_be_met_by_a_word_that_is_known() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'drop'"):
        Exclusive(on_conflict="drp")  # type: ignore[arg-type]


def test_the_loss_of_a_lease_can_only_be_met_by_a_word_that_is_known() -> None:
    with pytest.raises(ConfigurationError, match="one of 'flag', 'raise', not 'rise': did you mean 'raise'"):
        Exclusive(on_lost="rise")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, 60.0, "yes", None])
def test_a_key_is_kept_over_a_retry_or_it_is_not(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"write Exclusive\(hold_on_retry=True\)"):
        Exclusive(hold_on_retry=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("jitter", [-0.1, 1.1, "much", None])
def test_a_jitter_that_is_no_proportion_is_refused(jitter: object) -> None:
    with pytest.raises(ConfigurationError, match="jitter=0.1"):
        Cooldown(60, jitter=jitter)  # type: ignore[arg-type]


def test_lengths_may_be_timedeltas() -> None:
    assert Exclusive(ttl=timedelta(minutes=1)).ttl == 60
    assert cooldown_from(timedelta(minutes=2)) == Cooldown(120)


def test_a_jittered_quiet_period_is_never_shorter_than_it_says() -> None:
    cooldown = Cooldown(60, on_failure=10, jitter=0.5)

    lengths = [cooldown.after_success() for _ in range(1000)]

    assert min(lengths) >= 60
    assert max(lengths) <= 90
    assert len(set(lengths)) > 1
    assert 10 <= cooldown.after_failure() <= 15


def test_a_failure_leaves_no_quiet_period_unless_asked() -> None:
    assert Cooldown(60).after_failure() == 0
