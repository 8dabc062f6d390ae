"""What a dropped run is to those who wait for it: everything that hangs on it comes to an end, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult
from coord_site import Site, fresh_n
from local_processes import wait_until

from celery_coord import Dropped, TaskDropped

pytestmark = pytest.mark.server

#: What "promptly" is at most, in seconds: less than the holder's lease lasts.
PROMPTLY = 20


@pytest.fixture
def held(prefork: Site) -> Iterator[str]:
    """An argument whose key is held as long as the test lasts."""
    n = fresh_n()
    with prefork.holding(n):
        yield n


def assert_dropped(result: Any, n: str) -> None:
    """Who waits is told of the drop, promptly; also who knows the id alone, and not what stands before it."""
    if isinstance(result, AsyncResult):
        result = AsyncResult(result.id, app=result.app)
    with pytest.raises(Exception, match="dropped|TaskDropped") as caught:
        result.get(timeout=PROMPTLY)
    if isinstance(caught.value, TaskDropped):
        assert (caught.value.reason, caught.value.key) == ("held", f"n:{n}")
    else:  # a chord tells of its member
        assert f"n:{n}" in str(caught.value)


def assert_revoked(*results: AsyncResult) -> None:
    wait_until(lambda: {result.state for result in results} == {"REVOKED"}, "all of them are revoked", timeout=PROMPTLY)


def test_a_group_with_a_dropped_member_comes_to_an_end(prefork: Site, held: str) -> None:
    """10. A group on a dropped run comes to an end, with the reason; its other members run."""
    other = fresh_n()

    result = group(prefork.task("step").si(held), prefork.task("note").si(other)).apply_async()

    assert_dropped(result, held)
    wait_until(lambda: [member.state for member in result.results] == ["REVOKED", "SUCCESS"], "both have ended")
    assert prefork.words(other) == ["note"]


def test_what_stands_after_a_dropped_step_of_a_chain_ends_too(prefork: Site, held: str) -> None:
    """10. What stands after a dropped run in its chain ends too: the last id, and each between."""
    after = fresh_n()
    note = prefork.task("note")

    last = chain(prefork.task("step").si(held), note.si(after), note.si(after)).apply_async()

    assert_dropped(last, held)
    assert_dropped(last.parent, held)
    assert_dropped(last.parent.parent, held)
    assert_revoked(last, last.parent, last.parent.parent)
    assert prefork.words(after) == []


def test_a_drop_in_mid_chain_ends_the_rest_alone(prefork: Site, held: str) -> None:
    """10. What stands after a dropped run ends; what stood before it has run."""
    before = fresh_n()
    note = prefork.task("note")

    last = chain(note.si(before), prefork.task("step").si(held), note.si(before)).apply_async()

    assert_dropped(last, held)
    # Celery sends the next step before it stores the result of a step.
    wait_until(lambda: last.parent.parent.state == "SUCCESS", "what stood before it has ended")
    assert prefork.words(before) == ["note"]


def test_a_chord_with_a_dropped_header_member_comes_to_an_end(prefork: Site, held: str) -> None:
    """10. A chord on a dropped run comes to an end, promptly, with the reason."""
    other = fresh_n()
    header = [prefork.task("note").si(other), prefork.task("step").si(held), prefork.task("note").si(other)]

    body = chord(header)(prefork.task("same").s())

    assert_dropped(body, held)
    wait_until(lambda: prefork.words(other) == ["note", "note"], "the other members ran")


def test_a_chord_whose_body_is_dropped_comes_to_an_end(prefork: Site, held: str) -> None:
    """10. `.get()` on a chord whose body is dropped comes to an end, with the reason."""
    body = chord([prefork.task("note").si(fresh_n())] * 2)(prefork.task("step").si(held))

    assert_dropped(body, held)
    assert_revoked(body)


def test_a_group_after_a_dropped_step_ends_too(prefork: Site, held: str) -> None:
    """10. What stands after a dropped run in its chain ends too, also the members of a group."""
    after = fresh_n()
    note = prefork.task("note")

    result = chain(prefork.task("step").si(held), group(note.si(after), note.si(after))).apply_async()

    assert_dropped(result, held)
    assert_revoked(*result.results)
    assert prefork.words(after) == []


def test_a_chord_after_a_dropped_step_ends_too(prefork: Site, held: str) -> None:
    """10. What stands after a dropped run in its chain ends too, also a chord: its header, its body."""
    after = fresh_n()
    note, same = prefork.task("note"), prefork.task("same")

    result = chain(prefork.task("step").si(held), group(note.si(after), note.si(after)), same.s()).apply_async()

    assert_dropped(result, held)
    assert_revoked(result)
    assert prefork.words(after) == []


def test_a_chord_of_chains_with_a_dropped_step_comes_to_an_end(prefork: Site, held: str) -> None:
    """10. A chord comes to an end where a step in a chain of its header is dropped."""
    other = fresh_n()
    note, step = prefork.task("note"), prefork.task("step")

    body = chord([chain(step.si(held), note.si(other)), chain(note.si(other), step.si(held))])(prefork.task("same").s())

    assert_dropped(body, held)


def test_a_chain_that_goes_on_after_a_chord_with_a_dropped_member_ends_too(prefork: Site, held: str) -> None:
    """10. What stands after a dropped run ends too, also behind the chord that it is a member of."""
    after = fresh_n()
    note, same = prefork.task("note"), prefork.task("same")

    result = chain(group(prefork.task("step").si(held), note.si(fresh_n())), same.s(), note.si(after)).apply_async()

    assert_dropped(result, held)
    assert prefork.words(after) == []


def test_a_task_that_ignores_its_result_ends_its_chain_too(prefork: Site, held: str) -> None:
    """10. What stands after a dropped run ends too, though the run itself keeps no result."""
    after = fresh_n()

    last = chain(prefork.task("unheard").si(held), prefork.task("note").si(after)).apply_async()

    assert_dropped(last, held)
    assert prefork.words(after) == []


def test_a_task_that_ignores_its_result_ends_its_chord_too(prefork: Site, held: str) -> None:
    """10. A chord comes to an end, though the dropped member keeps no result."""
    body = chord([prefork.task("unheard").si(held), prefork.task("note").si(fresh_n())])(prefork.task("same").s())

    assert_dropped(body, held)


def test_a_task_that_ignores_its_result_keeps_none_when_it_is_dropped(prefork: Site, held: str) -> None:
    """10. A dropped run of a task that ignores its result writes nothing; 11. it is not silent for all that."""
    dropped = prefork.task("unheard").delay(held)

    prefork.wait_for_signal("task_dropped", task_id=dropped.id)

    assert not prefork.client.exists(f"celery-task-meta-{dropped.id}")


def test_a_callback_of_a_dropped_run_is_not_sent(prefork: Site, held: str) -> None:
    """10. A dropped run did not end well: its `link` does not run."""
    after = fresh_n()

    dropped = prefork.task("step").apply_async((held,), link=prefork.task("note").si(after))

    assert_dropped(dropped, held)
    prefork.task("note").delay(fresh_n()).get(timeout=PROMPTLY)
    assert prefork.words(after) == []


def assert_stepped_aside(value: object, n: str) -> None:
    """The value tells of a drop, also after its way through JSON."""
    dropped = Dropped.of(value)
    assert dropped is not None
    assert (dropped.reason, dropped.key) == ("held", f"n:{n}")
    assert dropped.left is not None
    assert 0 < dropped.left <= 30


def test_with_return_a_dropped_run_counts_as_done(prefork: Site, held: str) -> None:
    """10. With `on_drop="return"` a dropped run counts as done with a `Dropped` value."""
    result = prefork.task("yielding").delay(held)

    assert_stepped_aside(result.get(timeout=PROMPTLY), held)
    assert result.state == "SUCCESS"
    assert prefork.signals("task_dropped", task_id=result.id)
    assert not prefork.signals("lease_acquired", key=f"n:{held}")[1:]


def test_with_return_a_chain_goes_on(prefork: Site, held: str) -> None:
    """10. With `on_drop="return"` what stands after a dropped run goes on."""
    result = chain(prefork.task("yielding").si(held), prefork.task("same").s()).apply_async()

    assert_stepped_aside(result.get(timeout=PROMPTLY), held)


def test_with_return_a_group_has_all_its_values(prefork: Site, held: str) -> None:
    """10. With `on_drop="return"` a group has a value of every member."""
    other = fresh_n()

    result = group(prefork.task("yielding").si(held), prefork.task("note").si(other)).apply_async()

    stepped_aside, ran = result.get(timeout=PROMPTLY)
    assert_stepped_aside(stepped_aside, held)
    assert ran == other


def test_with_return_a_chord_goes_on(prefork: Site, held: str) -> None:
    """10. With `on_drop="return"` the body of a chord gets a value of every member."""
    other = fresh_n()
    header = [prefork.task("yielding").si(held), prefork.task("note").si(other)]

    stepped_aside, ran = chord(header)(prefork.task("same").s()).get(timeout=PROMPTLY)

    assert_stepped_aside(stepped_aside, held)
    assert ran == other


def test_with_return_a_drop_leaves_no_quiet_period(prefork: Site, held: str) -> None:
    """12. The cooldown begins in the step that ends the lease: a run that held none begins none."""
    prefork.task("yielding").delay(held).get(timeout=PROMPTLY)

    assert not prefork.client.exists(prefork.cooldown_name(held))
