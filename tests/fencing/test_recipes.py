"""The recipes of docs/fencing.md: the newer holder's write stands, whoever comes when."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from hypothesis import given, settings, strategies as st
from local_postgres import LocalPostgres
from local_processes import PATIENCE, wait_until
from recipes import Postgres, Recipe, SentUnder, Sqlite

_numbers = itertools.count(1)


def fresh_cluster() -> str:
    """A row, and a key, that no other test uses."""
    return f"cluster-{next(_numbers)}"


def test_the_write_of_a_run_that_outslept_its_lease_is_refused_loudly(recipe: Recipe) -> None:
    """1. Each holder's token is larger than every earlier one: what checks it lets the newer write stand."""
    cluster = fresh_cluster()

    newer, stale = recipe.page["race"](lambda lease, size: recipe.write_size(cluster, size, lease.token))

    assert newer == "SUCCESS"
    assert isinstance(stale, recipe.stale_write)
    assert recipe.size(cluster)[0] == 5


def test_the_rows_of_a_run_that_outslept_its_lease_are_refused_loudly(recipe: Recipe) -> None:
    """1. Each holder's token is larger than every earlier one: a fence keeps a whole transaction out."""
    cluster = fresh_cluster()

    newer, stale = recipe.page["race"](
        lambda lease, size: recipe.write_replicas(cluster, [f"{size}-{n}" for n in range(size)], lease)
    )

    assert newer == "SUCCESS"
    assert isinstance(stale, recipe.stale_write)
    assert recipe.hosts(cluster) == [f"5-{n}" for n in range(5)]


def test_without_a_check_of_the_token_the_stale_run_has_the_last_word(recipe: Recipe) -> None:
    """The race is a race: it is the recipe that decides it."""
    written: list[int] = []

    ends = recipe.page["race"](lambda lease, size: written.append(size))

    assert ends == ["SUCCESS", "SUCCESS"]
    assert written == [5, 3]


def test_the_same_holder_may_write_again(recipe: Recipe) -> None:
    cluster = fresh_cluster()
    lease = SentUnder(cluster, 41)

    for size in (1, 2):
        recipe.write_size(cluster, size, lease.token)
        recipe.write_replicas(cluster, range(size), lease)

    assert recipe.size(cluster) == (2, 41)
    assert recipe.hosts(cluster) == ["0", "1"]


def test_a_token_may_fill_64_bits(recipe: Recipe) -> None:
    cluster = fresh_cluster()
    largest = 2**63 - 1

    recipe.write_size(cluster, 1, largest)
    recipe.write_replicas(cluster, range(1), SentUnder(cluster, largest))

    assert recipe.size(cluster) == (1, largest)
    with pytest.raises(recipe.stale_write):
        recipe.write_size(cluster, 2, largest - 1)
    with pytest.raises(recipe.stale_write):
        recipe.write_replicas(cluster, range(2), SentUnder(cluster, largest - 1))


def test_what_a_refused_run_wrote_before_it_was_refused_is_undone(recipe: Recipe) -> None:
    cluster, other = fresh_cluster(), fresh_cluster()
    recipe.write_replicas(cluster, ["new"], SentUnder(cluster, 42))

    with pytest.raises(recipe.stale_write):
        recipe.write_replicas(other, ["old"], SentUnder(cluster, 41))

    assert recipe.hosts(other) == []


def test_a_transaction_that_fails_behind_the_fence_leaves_neither_rows_nor_token(recipe: Recipe) -> None:
    """Token and rows are written in one atomic step, or not at all."""
    cluster = fresh_cluster()
    recipe.write_replicas(cluster, ["old"], SentUnder(cluster, 40))

    with pytest.raises(ConnectionError):
        recipe.write_replicas(cluster, _hosts_that_fail(), SentUnder(cluster, 42))

    assert recipe.hosts(cluster) == ["old"]
    recipe.write_replicas(cluster, ["older"], SentUnder(cluster, 41))
    assert recipe.hosts(cluster) == ["older"]


def _hosts_that_fail() -> Iterator[str]:
    yield "new"
    raise ConnectionError


@settings(max_examples=15, deadline=None)
@given(tokens=st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_whatever_the_order_a_write_is_refused_exactly_if_a_larger_token_came_before(
    recipe: Recipe, tokens: list[int]
) -> None:
    cluster = fresh_cluster()
    accepted = []

    for size, token in enumerate(tokens):
        try:
            recipe.write_size(cluster, size, token)
        except recipe.stale_write:
            continue
        accepted.append(token)

    assert accepted == [token for n, token in enumerate(tokens) if token == max(tokens[: n + 1])]
    assert recipe.size(cluster)[1] == max(tokens)


def test_of_first_writes_at_once_the_newest_stands(recipe: Recipe) -> None:
    """The row is not there yet: one inserts it, and what the others may do depends on their tokens alone."""
    runs = 4

    with ThreadPoolExecutor(runs) as threads:
        for _ in range(10):
            cluster, together = fresh_cluster(), threading.Barrier(runs)
            writes = [threads.submit(_write_together, together, recipe, cluster, token) for token in (1, 2, 3, 4)]
            refusals = [write.exception(PATIENCE) for write in writes]

            assert refusals[-1] is None
            assert all(refusal is None or isinstance(refusal, recipe.stale_write) for refusal in refusals)
            assert recipe.size(cluster) == (40, 4)
            assert recipe.hosts(cluster) == [f"4-{n}" for n in range(4)]


def _write_together(together: threading.Barrier, recipe: Recipe, cluster: str, token: int) -> None:
    together.wait(PATIENCE)
    refused = None
    try:
        recipe.write_size(cluster, token * 10, token)
    except recipe.stale_write as stale:
        refused = stale
    recipe.write_replicas(cluster, [f"{token}-{n}" for n in range(token)], SentUnder(cluster, token))
    if refused:
        raise refused


@pytest.mark.parametrize(("under_way", "comes_then"), [(41, 42), (42, 41)])
def test_a_transaction_under_way_is_waited_for_at_the_fence(
    recipe: Recipe, postgres: LocalPostgres, under_way: int, comes_then: int
) -> None:
    """Who comes then sees the token of the one before, or writes over all of what that one wrote."""
    cluster = fresh_cluster()
    passed, go_on = threading.Event(), threading.Event()

    with ThreadPoolExecutor(2) as threads:
        hosts = _hosts_that_wait(passed, go_on)
        first = threads.submit(recipe.write_replicas, cluster, hosts, SentUnder(cluster, under_way))
        assert passed.wait(PATIENCE)
        then = threads.submit(recipe.write_replicas, cluster, ["then"], SentUnder(cluster, comes_then))
        try:
            if _is_on_postgres(recipe):
                with postgres.connect() as looking:
                    wait_until(lambda: _waits(looking), "the second one waits for the first one's row")
            assert not then.done()
        finally:
            go_on.set()
        first.result(PATIENCE)

        if comes_then > under_way:
            then.result(PATIENCE)
            assert recipe.hosts(cluster) == ["then"]
        else:
            assert isinstance(then.exception(PATIENCE), recipe.stale_write)
            assert recipe.hosts(cluster) == ["first"]


def _hosts_that_wait(passed: threading.Event, go_on: threading.Event) -> Iterator[str]:
    """What a recipe asks for when it has passed the fence."""
    passed.set()
    assert go_on.wait(PATIENCE)
    yield "first"


def _is_on_postgres(recipe: Recipe) -> bool:
    return "Postgres" in type(recipe).__name__


def _waits(looking: psycopg.Connection) -> bool:
    looking.rollback()  # a transaction sees the statistics of its beginning
    row = looking.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
    return row is not None and row[0] > 0


@pytest.mark.parametrize("database", [Sqlite, Postgres])
def test_who_passes_the_fence_before_reading_is_not_overtaken_by_an_older_write(
    databases: None, database: type[Sqlite | Postgres]
) -> None:
    recipe, cluster = database(tables=True), fresh_cluster()
    recipe.write_replicas(cluster, ["a"], SentUnder(cluster, 41))

    with recipe.connect() as connection:
        recipe.page["pass_fence"](connection, SentUnder(cluster, 42))
        connection.commit()
    with pytest.raises(recipe.stale_write):
        recipe.write_replicas(cluster, ["a", "b"], SentUnder(cluster, 41))

    assert recipe.hosts(cluster) == ["a"]
    recipe.write_replicas(cluster, ["a", "c"], SentUnder(cluster, 42))
    assert recipe.hosts(cluster) == ["a", "c"]
