"""A store that does not answer for a while, whatever the reason, and those whom it concerns; nothing is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from local_processes import wait_until
from scene import LONG, SHORT, Body, Outcome, Process, Scene, grew
from troubles import TROUBLES, Trouble

from celery_coord.gate import Admitted, Unanswered
from celery_coord.testing import LocalServer

#: How many troubles are lived through at a time.
AT_A_TIME = 4
#: `coord_store_timeout`: short, for most of them are waited for that long again and again.
TIMEOUT = 0.6
#: What is renewed more seldom than the trouble lasts, and believed in for longer.
LASTING = 20.0
#: An act ends within three times the timeout; a busy machine may take a while to say so.
BOUND = 3 * TIMEOUT + 5.0


@dataclass
class Account:
    """What became of everybody."""

    scene: Scene
    asked: Outcome
    asked_for: float
    ended: Outcome
    ended_for: float
    outlived: Outcome
    brief_token: int
    lost_why: str
    deposed_why: str
    terms: tuple[int | None, int | None]
    lasting_is_lost: bool
    lasting_terms: tuple[int | None, int | None]
    later: dict[str, int]
    cooldowns: list[dict[str, Any]]
    recovered: dict[str, Any] | None


Accounts = dict[str, Future[Account]]


@pytest.fixture(scope="module")
def accounts(
    server: LocalServer, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Accounts]:
    """Each trouble that is asked for is lived through once, some of them at a time: most of it is waiting."""
    items = [item for item in request.session.items if item.module is request.module and hasattr(item, "callspec")]
    asked_for = {item.callspec.params["account"] for item in items}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(AT_A_TIME))

        def live(trouble: Trouble, folder: Path) -> Account:
            # Where the server answers all, nothing is waited for; and a server that is slow is another trouble.
            timeout = TIMEOUT if trouble.is_the_servers else LONG
            scene = stack.enter_context(trouble.scene(folder, timeout=timeout))
            with ThreadPoolExecutor(2) as acting:
                return live_through(scene, trouble, acting)

        folder = tmp_path_factory.mktemp("servers")
        lives = {
            trouble.name: pool.submit(live, trouble, folder / str(number))
            for number, trouble in enumerate(TROUBLES)
            if trouble in asked_for
        }
        wait(lives.values())  # pytest changes the environment between tests, and servers are started from threads here
        yield lives


@pytest.fixture(scope="module", params=TROUBLES, ids=str)
def account(accounts: Accounts, request: pytest.FixtureRequest) -> Account:
    """What became of everybody in one trouble; each test looks at one side of it."""
    return accounts[request.param.name].result()


def live_through(scene: Scene, trouble: Trouble, pool: ThreadPoolExecutor) -> Account:
    process = scene.process
    lasting, ending = begun(process, "lasting", LASTING), begun(process, "ending", LONG)
    lasting_leader, leader = process.lead("lasting", ttl=LASTING), process.lead(ttl=SHORT)
    brief = begun(process, "brief", SHORT)
    lasting_term, term = lasting_leader.term, wait_until(lambda: leader.term, "the leader leads")

    # The server may keep a lease for longer than its holder believes in it: what was not answered may have been done.
    scene.client.pexpire("lock:{coord:brief}", int(LONG * 1000))
    with trouble.happens(scene):
        asking, ends = pool.submit(timed, lambda: process.ask("asked")), pool.submit(timed, ending.end)
        brief.wait_until_lost()
        wait_until(lambda: not leader.leads, "the leader leads no more")
        # Before the trouble is over: or else the store's answer may be there first, that the lease is gone.
        lost, deposed = process.wait_for("lease_lost", key="brief"), process.wait_for("leader_deposed", name="elected")
        outlived = brief.end()
        asked, asked_for = asking.result()
        ended, ended_for = ends.result()

    later = {key: admitted_later(process, key) for key in ("asked", "brief")}
    wait_until(lambda: process.said("cooldown_started", key="ending"), "the quiet period of the body that ended")
    next_term = wait_until(lambda: leader.term, "the leader is elected again")
    return Account(
        scene=scene,
        asked=asked,
        asked_for=asked_for,
        ended=ended,
        ended_for=ended_for,
        outlived=outlived,
        brief_token=brief.token,
        lost_why=lost["why"],
        deposed_why=deposed["why"],
        terms=(term, next_term),
        lasting_is_lost=lasting.lost or bool(process.said("lease_lost", key="lasting")),
        lasting_terms=(lasting_term, lasting_leader.term),
        later=later,
        cooldowns=process.said("cooldown_started", key="ending"),
        recovered=process.wait_for("store_recovered") if trouble.is_the_servers else None,
    )


def begun(process: Process, key: str, ttl: float) -> Body:
    """A run that holds a key; one that the store was late to answer to is tried again."""
    while not (body := process.begin(key, ttl=ttl)).holding:
        assert isinstance(body.outcome, Unanswered)
    return body


def timed(act: Callable[[], Outcome]) -> tuple[Outcome, float]:
    begun = time.monotonic()
    return act(), time.monotonic() - begun


def admitted_later(process: Process, key: str) -> int:
    """The token of a run that is tried again until it is admitted."""
    tokens: list[int] = []

    def is_admitted() -> bool:
        match process.ask(key):
            case Admitted(token):
                tokens.append(token)
        return bool(tokens)

    wait_until(is_admitted, f"{key} is free again")
    return tokens[0]


def test_a_run_that_asks_is_neither_admitted_nor_refused(account: Account) -> None:
    """9. When the store cannot be reached, a run is neither dropped nor let through unguarded."""
    assert isinstance(account.asked, Unanswered)


def test_an_act_is_bounded_in_time(account: Account) -> None:
    """9. Asking, and ending, each last three times `coord_store_timeout` at most."""
    assert account.asked_for < BOUND
    assert account.ended_for < BOUND


def test_what_was_granted_and_not_heard_is_given_back(account: Account) -> None:
    """9. The run that asked is tried again later, and does not meet its own ghost for a whole ttl."""
    assert account.later["asked"] > account.brief_token


def test_a_holder_finds_its_lease_lost_in_time(account: Account) -> None:
    """5. A holder that cannot renew knows it, in time, without asking the store: nobody has said that it was gone."""
    assert account.lost_why == "unrenewed"


def test_a_lease_that_is_lost_leaves_no_quiet_period(account: Account) -> None:
    """12. The quiet period begins only if the lease was still ours; the result stands all the same."""
    assert isinstance(account.outlived, Admitted)
    assert account.scene.process.said("lease_outlived", key="brief")
    assert account.later["brief"] > account.brief_token


def test_a_lease_that_lasts_longer_than_the_trouble_is_kept(account: Account) -> None:
    """5. An error is no loss: it is asked again, sooner, until the store answers or the trust ends."""
    assert not account.lasting_is_lost
    assert account.lasting_terms[0] == account.lasting_terms[1]


def test_the_end_of_a_body_is_settled_as_soon_as_the_store_answers(account: Account) -> None:
    """12. The run ends as it would; its lease ends and its quiet period begins once, when the store is back."""
    assert isinstance(account.ended, Admitted)
    assert account.scene.lock("ending") is None
    assert account.scene.is_cooling("ending")
    assert len(account.cooldowns) == 1


def test_a_leader_that_cannot_renew_leads_no_more_and_is_elected_anew(account: Account) -> None:
    """14. Unsure means no; terms grow."""
    assert account.deposed_why == "unrenewed"
    assert grew(*account.terms)


def test_it_is_told_that_the_store_answers_again(account: Account) -> None:
    """For how long it did not, and how many acts of this process have failed meanwhile."""
    assert len(account.scene.process.said("store_failed")) > 1
    if account.recovered is None:  # what is wrong with one act is not over with the next one
        assert not account.scene.process.said("store_recovered")
        return
    assert account.recovered["seconds"] > 0
    assert account.recovered["failures"] > 0


def test_a_renewal_that_was_not_answered_is_asked_again_until_the_trust_ends(scene: Scene) -> None:
    """5. Every twelfth of the ttl, or sooner: a store that is back before the trust ends finds the holder asking."""
    holder = scene.process.begin("k", ttl=LASTING / 2)
    scene.proxy.die()

    holder.wait_until_lost()

    assert len([told for told in scene.process.said("store_failed") if told["doing"].startswith("renewing")]) > 3
