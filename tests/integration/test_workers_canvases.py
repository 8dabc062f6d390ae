"""Whoever waits for a canvas is told of a drop in it, however deep; nobody is left waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from canvas_project import CanvasSite
from canvases import ASK_THE_MEMBER, CANVASES, TELL_OF_A_NEIGHBOUR, Parts
from celery import Celery, Signature, chain, chord, group
from celery._state import get_current_app
from celery.exceptions import ChordError
from celery.result import AsyncResult, GroupResult
from coord_site import Site, fresh_n
from local_processes import wait_until

from celery_coord import Dropped, TaskDropped
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

#: What "promptly" is at most, in seconds.
PROMPTLY = 20

every_canvas = pytest.mark.parametrize("name", sorted(CANVASES))


@dataclass(frozen=True)
class Place:
    """A site with a worker; a key that is held, and one that is cooling, for as long as there are tests.

    Attributes:
        site: the site.
        refusing: the argument whose key refuses, for each reason.
    """

    site: Site
    refusing: dict[str, str]

    def parts(self, member: str, reason: str, **options: Any) -> Parts:
        """What a canvas is made of: its member meets this reason, or none where there is no such one."""
        n = self.refusing.get(reason) or fresh_n()
        return Parts(self.site.app, member, n, other=fresh_n(), behind=fresh_n(), **options)

    def runs(self, n: str) -> int:
        """How many of the tasks with this argument have run."""
        return self.site.words(n).count("note")


@contextmanager
def as_current(app: Celery) -> Iterator[None]:
    """Celery 5.5 asks the current application, and no other, whether there is a backend for a chord in a chain."""
    previous = get_current_app()
    app.set_current()
    yield
    previous.set_current()


def _place(folder: Path, pool: str) -> Iterator[Place]:
    with CanvasSite(folder) as site, as_current(site.app):
        site.ready_workers(pool)
        held, cooling = fresh_n(), fresh_n()
        site.task("firm").delay(cooling).get(timeout=PROMPTLY)
        with site.task("firm").lock(held):  # renews itself
            yield Place(site, {"held": held, "cooling": cooling})


@pytest.fixture(scope="module")
def in_prefork(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from _place(tmp_path_factory.mktemp("canvases-prefork"), "prefork")


@pytest.fixture(scope="module")
def in_threads(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from _place(tmp_path_factory.mktemp("canvases-threads"), "threads")


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """The place that the parameter names."""
    found: Place = request.getfixturevalue(request.param)
    return found


in_every_pool = pytest.mark.parametrize("place", ["in_prefork", "in_threads"], indirect=True)
for_every_reason = pytest.mark.parametrize(
    ("place", "reason"),
    [("in_prefork", "held"), ("in_prefork", "cooling"), ("in_threads", "held")],
    indirect=["place"],
)


def assert_tells_of_the_drop(result: AsyncResult | GroupResult, n: str, reason: str) -> None:
    """Who waits is told of the drop, promptly; a chord tells of it as a fault of its member."""
    with pytest.raises((TaskDropped, ChordError)) as caught:
        result.get(timeout=PROMPTLY)
    if isinstance(caught.value, TaskDropped):
        assert (caught.value.reason, caught.value.key) == (reason, f"n:{n}")
    else:
        assert f"TaskDropped({reason!r}, 'n:{n}'" in str(caught.value)


def everything_in(result: AsyncResult | GroupResult | None) -> Iterator[str]:
    """The id of each result that one who sent a canvas can wait for."""
    if result is None:
        return
    if isinstance(result, GroupResult):
        for member in result.results:
            yield from everything_in(member)
    else:
        yield result.id
    yield from everything_in(result.parent)


def states(site: Site, ids: list[str]) -> set[str]:
    """The states that ids come to, each of them awaited by nothing but its id; those that never end are PENDING."""
    deadline = time.monotonic() + PROMPTLY
    awaited = [AsyncResult(task_id, app=site.app) for task_id in ids]
    while not all(result.ready() for result in awaited) and time.monotonic() < deadline:
        time.sleep(0.02)
    return {result.state for result in awaited}


@every_canvas
def test_a_canvas_runs_whole_where_its_member_is_admitted(in_prefork: Place, name: str) -> None:
    """The canvases of these tests are sound: where nothing is dropped each of them runs to its end."""
    parts = in_prefork.parts("firm", "nothing")
    result = CANVASES[name](parts).apply_async()

    result.get(timeout=PROMPTLY)

    assert states(in_prefork.site, list(everything_in(result))) == {"SUCCESS"}
    assert in_prefork.runs(parts.behind) == parts.afters


@pytest.mark.parametrize("name", sorted(CANVASES.keys() - TELL_OF_A_NEIGHBOUR))
@for_every_reason
def test_get_on_a_canvas_with_a_dropped_member_ends(place: Place, reason: str, name: str) -> None:
    """10. `.get()` on a canvas with a dropped run comes to an end, promptly, with the reason; nothing goes on."""
    parts = place.parts("firm", reason)
    result = CANVASES[name](parts).apply_async()

    assert_tells_of_the_drop(result, parts.n, reason)

    assert place.runs(parts.behind) == 0


@every_canvas
@for_every_reason
def test_each_id_of_a_canvas_with_a_dropped_member_ends(place: Place, reason: str, name: str) -> None:
    """10. Who waits by nothing but an id, for any task of a canvas with a dropped run, comes to an end as well."""
    parts = place.parts("firm", reason)
    result = CANVASES[name](parts).apply_async()

    found = states(place.site, list(everything_in(result)))

    assert found <= {"SUCCESS", "REVOKED", "FAILURE"}
    assert found != {"SUCCESS"}


@in_every_pool
def test_a_canvas_with_many_dropped_members_ends_once_for_all(place: Place) -> None:
    """10. Several drops in one canvas end it as one does: who waits is told of one of them, and nothing goes on."""
    parts = place.parts("firm", "held")
    inner = [chord([parts.guarded(), parts.guarded(), parts.beside()], parts.values()) for _ in range(2)]
    result = chain(chord([*inner, parts.guarded(), parts.beside()], parts.after()), parts.after()).apply_async()

    assert_tells_of_the_drop(result, parts.n, "held")

    assert states(place.site, list(everything_in(result))) <= {"SUCCESS", "REVOKED", "FAILURE"}
    assert place.runs(parts.behind) == 0


@every_canvas
@for_every_reason
def test_with_return_a_canvas_with_a_dropped_member_goes_on(place: Place, reason: str, name: str) -> None:
    """10. With `on_drop="return"` a dropped run counts as done, and what stands after it goes on, all of it."""
    parts = place.parts("polite", reason)
    result = CANVASES[name](parts).apply_async()

    result.get(timeout=PROMPTLY)

    assert states(place.site, list(everything_in(result))) == {"SUCCESS"}
    assert place.runs(parts.behind) == parts.afters
    assert place.runs(parts.n) == 0


@pytest.mark.parametrize("name", sorted(CANVASES.keys() - ASK_THE_MEMBER - TELL_OF_A_NEIGHBOUR))
@in_every_pool
def test_get_on_a_canvas_ends_though_the_dropped_member_ignores_its_result(place: Place, name: str) -> None:
    """10. `.get()` on a canvas with a dropped run ends, though the run itself keeps no result."""
    parts = place.parts("firm", "held", ignore_result=True)
    result = CANVASES[name](parts).apply_async()

    assert_tells_of_the_drop(result, parts.n, "held")

    assert place.runs(parts.behind) == 0


@pytest.mark.parametrize("name", sorted(CANVASES.keys() - ASK_THE_MEMBER))
@in_every_pool
def test_with_return_a_canvas_goes_on_though_the_dropped_member_ignores_its_result(place: Place, name: str) -> None:
    """10. With `on_drop="return"` what stands after a dropped run goes on, though the run itself keeps no result."""
    parts = place.parts("polite", "held", ignore_result=True)
    result = CANVASES[name](parts).apply_async()

    result.get(timeout=PROMPTLY)

    assert place.runs(parts.behind) == parts.afters


@in_every_pool
def test_a_drop_is_stored_where_errors_are_stored_though_results_are_ignored(place: Place) -> None:
    """10. `task_store_errors_even_if_ignored` holds for a drop as for any revocation: who waits is told."""
    n = place.refusing["held"]

    dropped = place.site.task("heard_if_it_fails").delay(n)

    assert_tells_of_the_drop(AsyncResult(dropped.id, app=place.site.app), n, "held")
    assert dropped.state == "REVOKED"


@in_every_pool
def test_a_good_end_is_not_stored_where_errors_alone_are(place: Place) -> None:
    """A run that is admitted keeps no result where it ignores it, whatever becomes of errors."""
    n = fresh_n()

    run = place.site.task("heard_if_it_fails").delay(n)
    place.site.wait_for_word(n, "end")
    place.site.task("note").delay(n).get(timeout=PROMPTLY)

    assert not place.site.client.exists(f"celery-task-meta-{run.id}")


#: What may hang on a task by `link`: each makes a signature of tasks with one argument.
LINKS: dict[str, Callable[[Signature], Signature]] = {
    "task": lambda note: note,
    "chain": lambda note: chain(note, note, note),
    "group": lambda note: group(note, note),
    "chord": lambda note: chord([note, note], note),
    "task_with_a_link": lambda note: note.clone().set(link=note.clone()),
}

every_link = pytest.mark.parametrize("link", sorted(LINKS))


def callback(place: Place, link: str) -> tuple[Signature, str, list[str]]:
    """A signature to hang on a task; the argument of its tasks; and the ids that one can wait for."""
    behind = fresh_n()
    made = LINKS[link](place.site.task("note").si(behind))
    return made, behind, list(everything_in(made.freeze()))


@every_link
@in_every_pool
def test_a_callback_of_a_dropped_run_is_not_sent_and_ends(place: Place, link: str) -> None:
    """10. What stands after a dropped run ends too: its `link`, for whoever waits for an id of that."""
    n = place.refusing["held"]
    made, behind, ids = callback(place, link)

    dropped = place.site.task("firm").apply_async((n,), link=made)

    assert_tells_of_the_drop(dropped, n, "held")
    assert states(place.site, ids) == {"REVOKED"}
    assert place.runs(behind) == 0


@every_link
@in_every_pool
def test_a_callback_of_a_step_behind_a_dropped_run_ends(place: Place, link: str) -> None:
    """10. What stands after a dropped run in its chain ends too, and with it its `link`."""
    n = place.refusing["held"]
    made, behind, ids = callback(place, link)

    result = chain(place.site.task("firm").si(n), place.site.task("note").si(behind)).apply_async(link=made)

    assert_tells_of_the_drop(result, n, "held")
    assert states(place.site, ids) == {"REVOKED"}
    assert place.runs(behind) == 0


@in_every_pool
def test_a_callback_of_a_run_that_is_dropped_and_ignores_its_result_ends(place: Place) -> None:
    """10. The `link` of a dropped run ends, though the run itself keeps no result."""
    n = place.refusing["held"]
    made, behind, ids = callback(place, "task")

    place.site.task("firm").apply_async((n,), link=made, ignore_result=True)

    assert states(place.site, ids) == {"REVOKED"}
    assert place.runs(behind) == 0


@in_every_pool
def test_a_callback_without_an_id_does_not_disturb_a_drop(place: Place) -> None:
    """10. A `link` that was given no id has nobody who waits for it; the dropped run ends as ever."""
    n, behind = place.refusing["held"], fresh_n()

    dropped = place.site.task("firm").apply_async((n,), link=place.site.task("note").si(behind))

    assert_tells_of_the_drop(dropped, n, "held")
    assert place.runs(behind) == 0


@every_link
@in_every_pool
def test_with_return_the_callback_of_a_dropped_run_runs(place: Place, link: str) -> None:
    """10. With `on_drop="return"` what stands after a dropped run goes on: its `link`."""
    n = place.refusing["held"]
    made, behind, ids = callback(place, link)

    place.site.task("polite").apply_async((n,), link=made)

    assert states(place.site, ids) == {"SUCCESS"}
    wait_until(lambda: place.runs(behind) > 0, "the callback has run")


@in_every_pool
def test_with_return_a_callback_gets_the_value_of_the_drop(place: Place) -> None:
    """10. With `on_drop="return"` a callback is handed the `Dropped` value."""
    made = place.site.task("same").s()
    waits = made.freeze()

    place.site.task("polite").apply_async((place.refusing["held"],), link=made)

    assert Dropped.of(waits.get(timeout=PROMPTLY))


@pytest.mark.parametrize("member", ["firm", "polite"])
@in_every_pool
def test_an_errback_of_a_dropped_run_is_not_run(place: Place, member: str) -> None:
    """A drop is no failure: `link_error` is not run, neither that of the run nor that of a step behind it."""
    n, behind = place.refusing["held"], fresh_n()
    note = place.site.task("note")

    alone = place.site.task(member).apply_async((n,), link_error=note.si(behind))
    steps = chain(place.site.task(member).si(n), note.si(fresh_n())).apply_async(link_error=note.si(behind))
    found = states(place.site, [alone.id, *everything_in(steps)])
    note.delay(fresh_n()).get(timeout=PROMPTLY)

    assert found == ({"REVOKED"} if member == "firm" else {"SUCCESS"})
    assert place.runs(behind) == 0


@in_every_pool
def test_an_errback_of_a_chords_body_runs_when_a_member_is_dropped(place: Place) -> None:
    """10. A chord whose member is dropped fails, as Celery has it for a revoked one: its body's `link_error` runs."""
    n, behind = place.refusing["held"], fresh_n()
    note, same = place.site.task("note"), place.site.task("same")

    body = chord([place.site.task("firm").si(n), note.si(fresh_n())])(same.s().on_error(note.si(behind)))

    assert_tells_of_the_drop(body, n, "held")
    wait_until(lambda: place.runs(behind) == 1, "the errback has run")


@in_every_pool
def test_with_return_no_errback_of_a_chord_runs(place: Place) -> None:
    """10. With `on_drop="return"` a chord goes on: its body runs, and its `link_error` does not."""
    n, behind = place.refusing["held"], fresh_n()
    note, same = place.site.task("note"), place.site.task("same")

    body = chord([place.site.task("polite").si(n), note.si(fresh_n())])(same.s().on_error(note.si(behind)))
    stepped_aside, _ = body.get(timeout=PROMPTLY)

    assert Dropped.of(stepped_aside)
    assert place.runs(behind) == 0
