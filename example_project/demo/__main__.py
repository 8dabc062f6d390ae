"""``python -m example_project.demo``: exits with 0 if every promise was kept, 1 if one broke, 130 when interrupted."""

from __future__ import annotations

import signal
import sys

from redis.exceptions import RedisError

from celery_coord import StoreError
from celery_coord.testing import ServerMissing
from example_project.app import app
from example_project.components import COMPONENT
from example_project.demo.report import report
from example_project.demo.screen import best_screen
from example_project.demo.stage import DISCOVER_SECONDS, LEADER_SECONDS, QUIET_SECONDS, Stage
from example_project.demo.story import Interrupted, Story, Stuck
from example_project.demo.verdict import Promise, promises
from example_project.tasks import discover, refresh_cluster_state

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


class _Interruptions:
    """Remembers that somebody wants the demo to end.

    An exception out of a signal handler could come between the start of a process and its entry in the list of
    those to be ended; so the story asks instead, where it can stop.
    """

    def __init__(self) -> None:
        self._came = False
        for number in _INTERRUPTIONS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                signal.signal(number, self._note)

    def __call__(self) -> bool:
        return self._came

    def _note(self, *_: object) -> None:
        self._came = True


def main() -> int:
    """Run it, and say how it ended."""
    interrupted = _Interruptions()
    try:
        with Stage() as stage:
            return _play(stage, interrupted)
    except ServerMissing as error:
        print(error, file=sys.stderr)
    except Interrupted:
        print("interrupted; everything that was started has ended", file=sys.stderr)
        return _INTERRUPTED
    return 1


def _play(stage: Stage, interrupted: _Interruptions) -> int:
    app.conf.update(broker_url=stage.url, result_backend=stage.url, coord_url=stage.url)
    with best_screen() as screen:
        story = Story(stage, screen, interrupted)
        trouble = _tell(story)
    judged = _judge(story)
    print(report(stage, story, judged), flush=True)
    if not trouble and all(promise.kept for promise in judged):
        return 0
    print(stage.logs(), trouble, sep="\n\n", file=sys.stderr)
    return 1


def _tell(story: Story) -> str:
    """Tell the story; what kept it from its end, or nothing."""
    try:
        story.tell()
    except (Stuck, RedisError, StoreError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _judge(story: Story) -> list[Promise]:
    return promises(
        story.tally.entries,
        refresh=refresh_cluster_state.name,
        discover=discover.name,
        component=COMPONENT,
        every=DISCOVER_SECONDS,
        quiet=QUIET_SECONDS,
        leader_ttl=LEADER_SECONDS,
        unanswered=story.unanswered,
    )


if __name__ == "__main__":
    sys.exit(main())
