"""The component: discovery once more, on one worker of many, without a beat.

Every worker has it and campaigns for its leadership; the one that is elected runs it, in the worker's own process, and
another takes over when that worker ends or crashes. Compare `tasks.discover`, which beat sends and any worker runs:

    sent by beat                                run by a component
    needs a beat, and a place in the queue      needs neither: workers are enough
    is late when the queue is long              keeps its pace
    is a task: retries, results, time limits    is a function: it is called again in its next round

A project has one of the two. This one has both, so that they can be compared; what they ask for twice is dropped.
"""

from __future__ import annotations

from celery_coord import component
from example_project import settings
from example_project.app import app
from example_project.journal import journal
from example_project.tasks import look_around

#: What the workers campaign for.
COMPONENT = "discovery"


@component(app, every=settings.DISCOVER_SECONDS, name=COMPONENT)
def discovery(term: int) -> None:
    """Look around, every so often, on one worker alone."""
    with journal.round(COMPONENT, term) as report:
        report["found"] = look_around()
