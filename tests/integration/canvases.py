"""Canvases with one guarded member each, as data: what stands beside it, around it and after it.

Each is a function of `Parts`, and its name says how it nests. Whatever must not run after a drop that revokes is
an ``after``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import VERSION, Celery, Signature, chain, chord, group

Canvas = Callable[["Parts"], Signature]

CANVASES: dict[str, Canvas] = {}
#: Those in which Celery itself waits for the member's own result, and so for ever where the member ignores it.
ASK_THE_MEMBER = {
    "group_in_chain_in_chord",
    "body_that_is_a_group_with_a_dropped_member",
    "replaced_by_a_chain_dropped_last",
}
#: Those in which a Celery before 5.7 fails the plain member that ends last: waiters may be told of that instead.
TELL_OF_A_NEIGHBOUR = {"chord_whose_body_is_a_chain"} if VERSION[:2] < (5, 7) else set()


class Parts:
    """What canvases are made of, for one test.

    Args:
        app: the application.
        member: the name of the guarded task.
        n: its argument.
        other: the argument of the tasks that stand beside it.
        behind: the argument of the tasks that stand after it.
        options: further options of the guarded member's message.
    """

    def __init__(self, app: Celery, member: str, n: str, *, other: str, behind: str, **options: Any) -> None:
        self._app = app
        self._member = member
        self.n = n
        self._other = other
        self.behind = behind
        self._options = options
        self.afters = 0

    def guarded(self) -> Signature:
        """The member that meets a refusal."""
        return self._app.tasks[self._member].si(self.n).set(**self._options)

    def beside(self) -> Signature:
        """A member that runs whatever becomes of the guarded one."""
        return self._app.tasks["note"].si(self._other)

    def after(self) -> Signature:
        """A task that stands after the guarded one."""
        self.afters += 1
        return self._app.tasks["note"].si(self.behind)

    def values(self) -> Signature:
        """A task that gets what stands before it."""
        return self._app.tasks["same"].s()

    def become(self, canvas: Signature) -> Signature:
        """A task that is replaced by a canvas."""
        return self._app.tasks["become"].si(canvas)


def canvas(make: Canvas) -> Canvas:
    CANVASES[make.__name__] = make
    return make


@canvas
def group_in_chain_in_chord(p: Parts) -> Signature:
    return chord([chain(p.beside(), group(p.guarded(), p.beside())), p.beside()], p.values())


@canvas
def chord_in_chain_in_group(p: Parts) -> Signature:
    return group(chain(p.beside(), chord([p.guarded(), p.beside()], p.values()), p.after()), p.beside())


@canvas
def group_in_chord(p: Parts) -> Signature:
    return chord([group(p.beside(), group(p.guarded(), p.beside())), p.beside()], p.values())


@canvas
def chain_in_chain_in_chord(p: Parts) -> Signature:
    return chord([chain(chain(p.beside(), p.guarded()), chain(p.after(), p.after())), p.beside()], p.values())


@canvas
def chord_of_chords(p: Parts) -> Signature:
    return chord(
        [chord([p.guarded(), p.beside()], p.values()), chord([p.beside(), p.beside()], p.values())], p.values()
    )


@canvas
def chord_of_chords_of_chords(p: Parts) -> Signature:
    inner = chord([chord([p.beside(), p.guarded()], p.values()), p.beside()], p.values())
    return chord([inner, p.beside()], p.values())


@canvas
def chain_of_chords_dropped_in_the_first(p: Parts) -> Signature:
    return chain(chord([p.guarded(), p.beside()], p.values()), chord([p.after(), p.after()], p.values()), p.after())


@canvas
def chain_of_chords_dropped_in_the_second(p: Parts) -> Signature:
    return chain(chord([p.beside(), p.beside()], p.values()), chord([p.guarded(), p.beside()], p.after()), p.after())


@canvas
def chain_of_chords_dropped_between(p: Parts) -> Signature:
    return chain(chord([p.beside()] * 2, p.values()), p.guarded(), chord([p.after(), p.after()], p.after()))


@canvas
def chord_whose_body_is_a_chain(p: Parts) -> Signature:
    return chord([p.guarded(), p.beside()], chain(p.values(), p.after(), p.after()))


@canvas
def chord_whose_body_is_a_group(p: Parts) -> Signature:
    return chord([p.guarded(), p.beside()], group(p.after(), p.after()))


@canvas
def chord_whose_body_is_a_chord(p: Parts) -> Signature:
    return chord([p.guarded(), p.beside()], chord([p.after(), p.after()], p.values()))


@canvas
def body_that_is_a_chain_and_dropped(p: Parts) -> Signature:
    return chord([p.beside(), p.beside()], chain(p.guarded(), p.after(), p.after()))


@canvas
def body_that_is_a_group_with_a_dropped_member(p: Parts) -> Signature:
    return chord([p.beside(), p.beside()], group(p.guarded(), p.beside()))


@canvas
def body_that_is_a_chord_with_a_dropped_member(p: Parts) -> Signature:
    return chord([p.beside(), p.beside()], chord([p.guarded(), p.beside()], p.after()))


@canvas
def everything_behind_a_dropped_step(p: Parts) -> Signature:
    fork = group(chain(p.after(), p.after()), chord([p.after(), p.after()], p.after()))
    return chain(p.beside(), p.guarded(), fork, p.values())


@canvas
def chord_in_a_chord_behind_a_dropped_step(p: Parts) -> Signature:
    inner = chord([p.after(), p.after()], p.values())
    return chain(p.guarded(), chord([inner, p.after()], p.values()), p.after())


@canvas
def chain_in_a_group_behind_a_chord_with_a_dropped_member(p: Parts) -> Signature:
    return chain(group(p.guarded(), p.beside()), p.values(), group(chain(p.after(), p.after()), p.after()))


@canvas
def group_behind_a_group_with_a_dropped_member(p: Parts) -> Signature:
    return chain(group(p.guarded(), p.beside()), group(p.after(), p.after()))


@canvas
def replaced_by_a_chain_dropped_first(p: Parts) -> Signature:
    return p.become(chain(p.guarded(), p.after()))


@canvas
def replaced_by_a_chain_dropped_last(p: Parts) -> Signature:
    return p.become(chain(p.beside(), p.beside(), p.guarded()))


@canvas
def replaced_by_a_group(p: Parts) -> Signature:
    return p.become(group(p.guarded(), p.beside()))


@canvas
def replaced_by_a_chord(p: Parts) -> Signature:
    return p.become(chord([p.guarded(), p.beside()], p.values()))


@canvas
def replaced_by_a_chain_in_a_chain(p: Parts) -> Signature:
    return chain(p.beside(), p.become(chain(p.guarded(), p.after())), p.after(), p.after())


@canvas
def replaced_by_a_group_in_a_chain(p: Parts) -> Signature:
    return chain(p.beside(), p.become(group(p.guarded(), p.beside())), p.after(), p.after())


@canvas
def replaced_by_a_chord_in_a_chain(p: Parts) -> Signature:
    return chain(p.become(chord([p.beside(), p.guarded()], p.values())), p.after())


@canvas
def replaced_by_a_chain_in_a_chord(p: Parts) -> Signature:
    return chord([p.become(chain(p.beside(), p.guarded(), p.after())), p.beside()], p.values())


@canvas
def replaced_by_a_group_in_a_chord(p: Parts) -> Signature:
    return chord([p.become(group(p.guarded(), p.beside())), p.beside()], p.values())


@canvas
def replaced_by_a_chord_in_a_group(p: Parts) -> Signature:
    return group(p.become(chord([p.beside(), p.guarded()], p.values())), p.beside())


@canvas
def replaced_twice(p: Parts) -> Signature:
    return chain(p.become(p.become(chain(p.beside(), p.guarded()))), p.after())


@canvas
def replaced_body_of_a_chord(p: Parts) -> Signature:
    return chain(chord([p.beside(), p.beside()], p.become(chain(p.guarded(), p.after()))), p.after())


@canvas
def replaced_step_behind_a_dropped_one(p: Parts) -> Signature:
    return chain(p.guarded(), p.become(p.after()), p.after())


if VERSION[:2] < (5, 7):  # there Celery hangs in it, though nothing is dropped
    del CANVASES["chord_in_chain_in_group"]
