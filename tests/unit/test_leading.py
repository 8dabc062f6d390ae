"""`Election`: a candidate for any component, from threads and from asyncio."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from celery_coord import ConfigurationError, Election, Leader, NotLeader, signals
from celery_coord.app import coordination
from celery_coord.lease import Lease, Owner
from celery_coord.testing import FakeClock, use_memory

PATIENCE = 20.0
TTL = 0.6


@pytest.fixture
def app(clock: FakeClock) -> Celery:
    """Its leases are renewed in real time, and end when a test lets time pass: a slow machine loses none."""
    app = Celery("components", broker="memory://", set_as_current=False)
    app.conf.coord_leader_ttl = TTL
    use_memory(app, clock)
    return app


@pytest.fixture
def failures(app: Celery) -> Iterator[list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []

    def note(sender: Any, **fields: Any) -> None:
        said.append(fields)

    signals.component_failed.connect(note, sender=app)
    yield said
    signals.component_failed.disconnect(note, sender=app)


@pytest.fixture
def resignations(app: Celery) -> Iterator[list[str]]:
    """Why this process resigned, each time."""
    said: list[str] = []

    def note(sender: Any, why: str, **fields: Any) -> None:
        said.append(why)

    signals.leader_resigned.connect(note, sender=app)
    yield said
    signals.leader_resigned.disconnect(note, sender=app)


def until(condition: Callable[[], object]) -> None:
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never came true")


def pass_time(clock: FakeClock, election: Election, seconds: float) -> None:
    """Let time pass, and a leader renew meanwhile."""
    for _ in range(round(seconds / TTL * 3)):
        clock.advance(TTL / 3)
        until(lambda: election.trusted_for > TTL * 0.9)


def go_on_until(condition: Callable[[], object], clock: FakeClock, election: Election) -> None:
    """As `until`, while time passes; a leader has the time to renew."""

    def is_so() -> object:
        if not election.leads or election.trusted_for > TTL / 2:
            clock.advance(0.01)
        return condition()

    until(is_so)


def taken(app: Celery, name: str = "poller", ttl: float = 60) -> Lease:
    """Another process leads."""
    lease = coordination(app).store.acquire(f"leader:{name}", Owner.new("x"), ttl, heed_cooldown=False, label="there")
    assert isinstance(lease, Lease)
    return lease


def depose(app: Celery, name: str = "poller") -> None:
    """The store forgets who leads, and another is faster."""
    coordination(app).store._guards[f"leader:{name}"].held_until = 0.0  # type: ignore[attr-defined]
    taken(app, name)


def test_nothing_is_begun_when_it_is_made(app: Celery) -> None:
    """It may be made at import, before a fork, and before the application is configured."""
    app.conf.coord_url = "nonsense"

    election = Election("poller", app=app)

    assert not election.leads
    assert election.term is None
    assert election.trusted_for == 0
    election.resign()
    election.step_down()
    election.acted("nothing")


def test_a_campaign_waits_until_it_leads(app: Celery) -> None:
    election = Election("poller", app=app, label="v7")

    assert election.campaign()

    assert election.leads
    assert election.ensure() == election.term
    assert 0 < election.trusted_for <= TTL
    leader = election.observe()
    assert isinstance(leader, Leader)
    assert leader.term == election.term
    assert leader.label.endswith(f":{os.getpid()} v7")
    election.resign()
    election.resign()
    assert election.observe() is None


def test_one_who_follows_knows_it_and_whom(app: Celery) -> None:
    lease = taken(app)
    with Election("poller", app=app) as election:
        assert not election.campaign(timeout=0.1)

        with pytest.raises(NotLeader, match="does not lead poller"):
            election.ensure()
        leader = election.observe()
        assert leader is not None
        assert (leader.term, leader.label) == (lease.token, "there")

        coordination(app).store.settle(lease)
        assert election.campaign(timeout=PATIENCE)
        assert election.ensure() > lease.token


def test_a_campaign_ends_when_another_thread_resigns(app: Celery) -> None:
    taken(app)
    election = Election("poller", app=app)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(election.campaign()))
    waiting.start()
    until(lambda: election._known() and election._known().campaigns)  # type: ignore[union-attr]

    election.resign()
    waiting.join(PATIENCE)

    assert answers == [False]


def test_the_end_of_a_with_block_resigns_also_where_it_raises(app: Celery) -> None:
    election = Election("poller", app=app)
    with suppress(ZeroDivisionError), election:
        election.campaign()
        raise ZeroDivisionError

    assert not election.leads
    assert election.observe() is None


def test_a_child_of_the_leader_is_not_the_leader(app: Celery) -> None:
    """After a fork the child's is a candidate of its own, and follows."""
    with Election("poller", app=app) as election:
        election.campaign()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, f"{election.leads} {election.trusted_for} {election.retiring}".encode())
            os._exit(0)
        os.waitpid(pid, 0)

        assert os.read(reading, 100) == b"False 0.0 "
        assert election.leads
        for descriptor in (reading, writing):
            os.close(descriptor)


class Diary:
    """What a component was called with, in order."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []

    def __call__(self, what: str) -> Callable[[int], None]:
        return lambda term: self.lines.append((what, term))

    def words(self) -> list[str]:
        words = [word for word, _ in self.lines]
        return [word for number, word in enumerate(words) if number == 0 or words[number - 1] != word]


def looping(election: Election, each_round: Callable[[int], object], **options: Any) -> threading.Thread:
    thread = threading.Thread(target=election.run, args=(each_round,), kwargs={"every": 0.01, **options}, daemon=True)
    thread.start()
    return thread


def test_a_loop_calls_hooks_and_rounds_with_the_term(app: Celery, clock: FakeClock) -> None:
    diary = Diary()
    election = Election("poller", app=app, elected=diary("elected"), deposed=diary("deposed"))
    end = threading.Event()
    loop = looping(election, diary("round"), until=end)
    until(lambda: diary.words() == ["elected", "round"])
    first = election.term

    depose(app)
    until(lambda: diary.words() == ["elected", "round", "deposed"])
    coordination(app).store._guards["leader:poller"].held_until = 0.0  # type: ignore[attr-defined]
    go_on_until(lambda: diary.words() == ["elected", "round", "deposed", "elected", "round"], clock, election)
    end.set()
    loop.join(PATIENCE)

    assert not loop.is_alive()
    assert diary.words()[-1] == "deposed"
    assert diary.lines[0] == ("elected", first)
    terms = list(dict.fromkeys(term for _, term in diary.lines))
    assert len(terms) == 2
    assert terms[0] < terms[1]
    assert not election.leads


def test_a_loop_goes_on_after_a_round_that_raises(app: Celery, failures: list[dict[str, Any]]) -> None:
    election, rounds = Election("poller", app=app), [0]

    def fail(term: int) -> None:
        rounds[0] += 1
        raise ValueError("no moon")

    loop = looping(election, fail)
    until(lambda: rounds[0] >= 3)
    election.stop()
    loop.join(PATIENCE)

    assert failures[0] == {"signal": signals.component_failed, "name": "poller", "doing": "round"} | {
        "error": "ValueError: no moon"
    }


def test_one_whose_hook_raises_gives_the_term_up(
    app: Celery, failures: list[dict[str, Any]], resignations: list[str]
) -> None:
    """One that cannot begin does not keep others away."""
    diary = Diary()

    def fail(term: int) -> None:
        raise OSError("no database")

    election = Election("poller", app=app, elected=fail)
    loop = looping(election, diary("round"))
    until(lambda: "unable" in resignations)
    election.stop()
    loop.join(PATIENCE)

    assert diary.lines == []
    assert failures[0]["doing"] == "elected"


def test_one_that_is_stuck_in_a_round_lets_another(app: Celery) -> None:
    """Leadership follows health: a loop that is stuck stops leading."""
    election, begun, go_on = Election("poller", app=app), threading.Event(), threading.Event()

    def stuck(term: int) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    loop = looping(election, stuck, longest_round=0.2)
    assert begun.wait(PATIENCE)

    until(lambda: election.observe() is None)  # no time passes: its lease cannot have ended by itself
    lease = taken(app)
    go_on.set()
    election.stop()
    loop.join(PATIENCE)

    held = coordination(app).store.look("leader:poller").held
    assert held is not None
    assert held.token == lease.token


def test_a_round_may_last_longer_than_the_ttl(app: Celery, clock: FakeClock) -> None:
    election, terms, go_on = Election("poller", app=app), [], threading.Event()

    def long(term: int) -> None:
        terms.append(term)
        go_on.wait(PATIENCE)
        terms.append(election.ensure())

    loop = looping(election, long)
    until(lambda: terms)
    pass_time(clock, election, 2 * TTL)
    go_on.set()
    until(lambda: len(terms) >= 2)
    election.stop()
    loop.join(PATIENCE)

    assert terms[0] == terms[1]


def test_a_loop_hands_over_between_two_rounds(app: Celery, clock: FakeClock) -> None:
    """A term limit makes a healthy leader hand over; the work is brought to an end first."""
    diary = Diary()
    election = Election("poller", app=app, term_limit=0.2, deposed=diary("deposed"))
    led_at_the_end: list[bool] = []
    election._on_deposed = lambda term: led_at_the_end.append(election.leads)
    loop = looping(election, diary("round"))
    go_on_until(lambda: len({term for _, term in diary.lines}) >= 3, clock, election)
    election.stop()
    loop.join(PATIENCE)

    assert led_at_the_end[0]


def test_what_was_done_is_seen_by_observers(app: Celery) -> None:
    with Election("poller", app=app) as election:
        election.campaign()
        election.acted("counted sheep")

        until(lambda: getattr(election.observe(), "last_act", ""))
        leader = election.observe()
        assert leader is not None
        assert leader.last_act == "counted sheep"


def test_asyncio_campaigns_observes_and_resigns(app: Celery) -> None:
    async def main() -> None:
        async with Election("poller", app=app) as election:
            assert await election.acampaign(timeout=PATIENCE)
            leader = await election.aobserve()
            assert leader is not None
            assert leader.term == election.ensure()
        assert not election.leads
        assert await election.aobserve() is None

    asyncio.run(main())


def test_an_asyncio_campaign_that_is_in_vain_leaves_the_loop_to_others(app: Celery) -> None:
    taken(app)

    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        async with Election("poller", app=app) as election:
            campaign = asyncio.ensure_future(election.acampaign(timeout=PATIENCE))
            while turns < 100:
                await asyncio.sleep(0)
            assert not campaign.done()
            campaign.cancel()
            assert not await election.acampaign(timeout=0.2)
        counting.cancel()
        return turns

    assert asyncio.run(main()) >= 100


def test_an_asyncio_round_is_cancelled_when_the_leadership_ends_under_it(app: Celery) -> None:
    diary = Diary()

    async def main() -> None:
        election = Election("poller", app=app, elected=diary("elected"), deposed=diary("deposed"))

        async def work(term: int) -> None:
            diary("begin")(term)
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                diary("cancelled")(term)
                raise

        loop = asyncio.ensure_future(election.arun(work))
        while "begin" not in diary.words():
            await asyncio.sleep(0.01)
        depose(app)
        while "deposed" not in diary.words():
            await asyncio.sleep(0.01)
        election.stop()
        await loop

    asyncio.run(main())

    assert diary.words() == ["elected", "begin", "cancelled", "deposed"]


def test_an_asyncio_loop_that_is_cancelled_resigns_and_goes_on_after_a_failure(
    app: Celery, failures: list[dict[str, Any]]
) -> None:
    async def main() -> None:
        election = Election("poller", app=app)

        async def work(term: int) -> None:
            if len(failures) < 2:
                raise ValueError("no moon")
            await asyncio.sleep(PATIENCE)

        loop = asyncio.ensure_future(election.arun(work, every=0.01))
        while len(failures) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
        assert not election.leads
        assert election.observe() is None

    asyncio.run(main())

    assert [failure["doing"] for failure in failures] == ["round", "round"]


@pytest.mark.parametrize("name", ["", "a{b}", 7, "a\nb", None])
def test_a_name_that_is_none_is_refused(app: Celery, name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"write Election\('poller'\)"):
        Election(name, app=app)


@pytest.mark.parametrize("options", [{"ttl": 0.01}, {"ttl": "10"}, {"term_limit": 0}, {"term_limit": timedelta(0)}])
def test_lengths_of_time_that_cannot_be_are_refused(app: Celery, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="write Election"):
        Election("poller", app=app, **options)


def test_a_loop_that_cannot_be_is_refused_before_it_begins(app: Celery) -> None:
    election = Election("poller", app=app)

    with pytest.raises(ConfigurationError, match=r"write Election\('poller', every=30\)"):
        election.run(lambda _: None, every=0)

    assert election.observe() is None


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(NotLeader("poller")))

    assert error.name == "poller"
    assert "does not lead poller" in str(error)


def test_without_an_application_the_current_one_is_asked(app: Celery) -> None:
    from celery._state import get_current_app

    before = get_current_app()
    app.set_current()
    try:
        with Election("poller") as election:
            assert election.campaign(timeout=PATIENCE)
            assert coordination(app).store.look("leader:poller")
    finally:
        before.set_current()


def test_threads_that_begin_at_once_share_one_candidate(app: Celery) -> None:
    """Usable from threads: none makes a candidate of its own, which nobody could ask to resign."""
    app.__dict__.pop("_celery_coord")
    app.conf.coord_leader_ttl = 60
    election, before = Election("poller", app=app), set(threading.enumerate())
    begin = threading.Barrier(8)

    def campaign() -> None:
        begin.wait()
        election.campaign(timeout=0)

    threads = [threading.Thread(target=campaign) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert election.campaign(timeout=PATIENCE)
    here = set(threading.enumerate()) - before
    candidates = [thread for thread in here if thread.name == "celery_coord-poller"]
    election.resign()

    assert len(candidates) == 1
    assert election.observe() is None


def test_a_hook_that_outlasts_its_term_is_followed_by_no_round(app: Celery) -> None:
    """14. A round is called only while this process leads."""
    diary = Diary()

    def begin(term: int) -> None:
        diary("elected")(term)
        depose(app)
        until(lambda: not election.leads)

    election = Election("poller", app=app, elected=begin, deposed=diary("deposed"))
    loop = looping(election, diary("round"))
    until(lambda: "deposed" in diary.words())
    election.stop()
    loop.join(PATIENCE)

    assert diary.words() == ["elected", "deposed"]


def test_one_that_resigned_while_the_store_was_stalled_campaigns_again(app: Celery, clock: FakeClock) -> None:
    """`resign` waits for so long and no longer; what comes after it is not lost."""
    store = coordination(app).store
    election = Election("poller", app=app)
    assert election.campaign(timeout=PATIENCE)
    stalled, go_on, renew = threading.Event(), threading.Event(), store.renew

    def stall(leases: Any) -> Any:
        stalled.set()
        go_on.wait(PATIENCE)
        return renew(leases)

    store.renew = stall  # type: ignore[method-assign]
    assert stalled.wait(PATIENCE)
    election._candidate().resign(timeout=0.01)
    assert not election.leads

    election.campaign(timeout=0)
    store.renew = renew  # type: ignore[method-assign]
    go_on.set()

    go_on_until(lambda: election.leads, clock, election)  # once the lease that it gave up has ended
    election.resign()
    assert election.observe() is None


def test_a_resignation_ends_the_loop(app: Celery) -> None:
    election = Election("poller", app=app)
    loop = looping(election, lambda _: None)
    until(lambda: election.leads)

    election.resign()
    loop.join(PATIENCE)

    assert not loop.is_alive()


def test_a_loop_that_was_stopped_before_it_began_ends_at_once(app: Celery) -> None:
    """A SIGTERM may come while a program starts."""
    election = Election("poller", app=app)
    election.stop()

    election.run(lambda _: pytest.fail("a round"))

    assert not election.leads


def test_an_asyncio_round_may_clean_up_when_it_is_cancelled(app: Celery) -> None:
    diary = Diary()

    async def main() -> None:
        election = Election("poller", app=app, deposed=diary("deposed"))

        async def work(term: int) -> None:
            diary("begin")(term)
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                await asyncio.sleep(0.2)
                diary("cleaned up")(term)
                raise

        loop = asyncio.ensure_future(election.arun(work))
        while "begin" not in diary.words():
            await asyncio.sleep(0.01)
        depose(app)
        while "deposed" not in diary.words():
            await asyncio.sleep(0.01)
        election.stop()
        await loop

    asyncio.run(main())

    assert diary.words() == ["begin", "cleaned up", "deposed"]


@pytest.mark.parametrize("ticks", range(8))
def test_an_asyncio_loop_ends_whenever_it_is_cancelled(app: Celery, ticks: int) -> None:
    async def main() -> None:
        election, ended = Election("poller", app=app), asyncio.Event()

        async def work(term: int) -> None:
            ended.set()

        loop = asyncio.ensure_future(election.arun(work, every=60))
        await ended.wait()
        for _ in range(ticks):
            await asyncio.sleep(0)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(loop, PATIENCE)

    asyncio.run(main())


def test_an_asyncio_loop_goes_on_after_what_is_no_coroutine(app: Celery, failures: list[dict[str, Any]]) -> None:
    async def main() -> None:
        election = Election("poller", app=app)
        loop = asyncio.ensure_future(election.arun(lambda term: 1 // 0, every=0.01))
        while len(failures) < 2:
            await asyncio.sleep(0.01)
        election.stop()
        await loop

    asyncio.run(main())

    assert failures[0]["error"].startswith("ZeroDivisionError")


def test_a_coroutine_for_a_plain_loop_is_refused(app: Celery) -> None:
    async def work(term: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"write await election.arun\(each_round\)"):
        Election("poller", app=app).run(work)


def test_a_round_that_lasts_is_waited_for_when_its_leader_is_asked_to_step_down(app: Celery, clock: FakeClock) -> None:
    """It brings its round to an end, and resigns then: no two at work beside each other."""
    election, go_on, led = Election("poller", app=app), threading.Event(), []

    def work(term: int) -> None:
        go_on.wait(PATIENCE)
        led.append(election.term == term)

    loop = looping(election, work)
    until(lambda: election.leads)
    coordination(app).store.ask("leader:poller", str(election.term), 60)
    until(lambda: election.retiring)
    pass_time(clock, election, 2 * TTL)

    go_on.set()
    until(lambda: led)
    election.stop()
    loop.join(PATIENCE)

    assert led[0]
