"""Writes the page on endings from the table that the tests read: ``python -m docs.endings_page``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "endings"))

from endings_table import BROKERS, ENDINGS, NO_BROKER, POOLS, Ending, Outcome, cells  # noqa: E402  found just now

PAGE = Path(__file__).with_name("endings.md")
#: What the whole matrix printed when it last ran; pasted by hand.
OUTPUT = Path(__file__).with_name("endings_output.txt")

_BEFORE = """\
# How a task can end

<!-- Written by `python -m docs.endings_page`: change tests/endings/endings_table.py instead. -->

Every way a run of an exclusive task can end, and what is so then. Each row was seen to hold by tests with real workers,
real signals and real brokers, in each pool that it names; where no broker is named, on Redis and on RabbitMQ.

* **Key is free**: *with the body*, before the result is visible and before anything that follows is sent; *within a
  second*, for the worker's main process ends the lease when the body's process is gone; *within the ttl*, for nobody is
  left to do so.
* **Body runs again**: whether another body begins for the same run; not while an earlier one still runs. Another run
  that took the key meanwhile goes first; if that leaves a quiet period, this one is dropped.
* **Waiters see**: the state in the end, and the exception that `get()` raises. PENDING and RETRY here mean that nobody
  will ever be told.

*Early* and *late ack* are Celery's `acks_late=False` and `acks_late=True`; where a row names neither, the ack is early,
or it makes no difference. The states are those of Celery 5.7.

| ending | pools | key is free | body runs again | waiters see |
|---|---|---|---|---|
"""

_NOTES = """
## What to know beside it

"""

_AFTER = """
Where a row leaves a pool out there is no such ending: threads, greenlets and a solo worker have no child that could be
killed, and time limits are not enforced there (save the hard one, by gevent).

## Seen to hold

The whole table, one test for each row in each pool and on each broker:

```console
$ python -m pytest tests/endings --all-endings
```

Without `--all-endings` a sample of it runs: all of prefork on Redis, and elsewhere all that leaves its worker as it
was, and some of the rest. What the whole printed in the end:

```text
{output}
```
"""

_TITLES = {"redis": "Redis", "rabbitmq": "RabbitMQ"}
_AGAIN = {0: "never begins", 1: "no", 2: "yes"}


def page() -> str:
    """The whole page."""
    rows = "".join(map(_row, ENDINGS))
    notes = "".join(f"* **{ending.name}**: {ending.note}\n" for ending in ENDINGS if ending.note)
    return _BEFORE + rows + _NOTES + notes + _AFTER.format(output=OUTPUT.read_text(encoding="utf-8").strip())


def _row(ending: Ending) -> str:
    found = {(cell.pool, cell.broker): cell.outcome for cell in cells() if cell.ending is ending}
    pools = [pool for pool in POOLS if any(pool == where for where, _ in found)]
    said = [_column(found, tell) for tell in (_free, _again, _seen)]
    return f"| {' | '.join([ending.name, _listed(pools), *said])} |\n"


def _free(outcome: Outcome) -> str:
    return outcome.free.value


def _again(outcome: Outcome) -> str:
    return _AGAIN[outcome.bodies]


def _seen(outcome: Outcome) -> str:
    return f"{outcome.state} (`{outcome.error}`)" if outcome.error else outcome.state


def _column(found: dict[tuple[str, str], Outcome], tell: Callable[[Outcome], str]) -> str:
    """What the first place says, and which others say something else."""
    places: dict[str, list[tuple[str, str]]] = {}
    for place, outcome in found.items():
        places.setdefault(tell(outcome), []).append(place)
    first, *others = places
    return "; ".join([first, *(f"{_named(places[other])}: {other}" for other in others)])


def _named(places: Iterable[tuple[str, str]]) -> str:
    """Pools, and beside those that are meant on one broker alone, its name."""
    brokers: dict[str, set[str]] = {}
    for pool, broker in places:
        brokers.setdefault(pool, set()).add(broker)
    on = {broker: [pool for pool, known in brokers.items() if known == {broker}] for broker in (*BROKERS, NO_BROKER)}
    everywhere = [pool for pool, known in brokers.items() if known == set(BROKERS)] + on[NO_BROKER]
    named = [f"{', '.join(on[broker])} on {_TITLES[broker]}" for broker in BROKERS if on[broker]]
    return ", ".join([*named, *everywhere])


def _listed(pools: list[str]) -> str:
    return "all" if pools == list(POOLS) else "all but eager" if pools == list(POOLS[:-1]) else ", ".join(pools)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
