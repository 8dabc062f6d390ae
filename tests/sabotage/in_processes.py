"""Breaks between processes: a child that dies, a body that is interrupted, a token that goes on, a fork."""

from __future__ import annotations

from tests.sabotage.breaks import Break

_FOUND = "tests/unit/test_found_by_sabotage.py::test_"
_DEATHS = "tests/unit/test_deaths.py::test_"
_DELIVERY = "tests/unit/test_delivery.py::test_"
_INTERRUPT = "tests/unit/test_interrupt.py::test_"
_PARENT = "tests/integration/test_workers_parent.py::test_"
_REDELIVERY = "tests/integration/test_workers_redelivery.py::test_"
_RETRIES = "tests/integration/test_workers_retries.py::test_"
_LIMITS = "tests/faults/test_outage_limits.py::test_"
_BAD_START = "tests/integration/test_workers_bad_start.py::test_"
_GREENLETS = "tests/integration/test_workers_greenlets.py::test_"

_KILLED = f"{_REDELIVERY}the_work_of_a_killed_child_is_not_lost_and_its_key_is_free_at_once"
_STILL_RUNS = f"{_PARENT}the_parent_takes_nothing_from_a_body_that_still_runs"

IN_PROCESSES = (
    Break(
        "no parent release",
        "4. a dead child's key is free within a second",
        "delivery.py",
        "            request.abandon()\n",
        "            pass\n",
        (_KILLED,),
    ),
    Break(
        "parent release at the time limit instead of at the death",
        "1. at most one holds the lease",
        "delivery.py",
        "    def _watch(self, pid: int) -> None:\n",
        "    def on_timeout(self, soft, timeout):\n"
        "        self.abandon()\n"
        "        super().on_timeout(soft, timeout)\n"
        "\n"
        "    def _watch(self, pid: int) -> None:\n",
        (_STILL_RUNS,),
    ),
    Break(
        "the parent forgets a request as the pool does",
        "4. a dead child's key is free within a second",
        "delivery.py",
        "self._latest: dict[int, Request] = {}",
        'self._latest = __import__("weakref").WeakValueDictionary()',
        (f"{_FOUND}the_parent_keeps_what_a_child_began_until_it_is_dead",),
    ),
    Break(
        "a parent release that the store did not answer is not tried again",
        "4. a dead child's key is free within a second",
        "delivery.py",
        "return time.monotonic() >= until",
        "return True",
        (f"{_DELIVERY}a_store_that_does_not_answer_is_asked_again",),
    ),
    Break(
        "the nonce is made in the child: the parent does not know the owner",
        "4. a dead child's key is free within a second",
        "delivery.py",
        'self._request_dict["properties"] = {**self._request_dict["properties"], NONCE: os.urandom(6).hex()}',
        "pass",
        (_KILLED,),
    ),
    Break(
        "an error of a parent release reaches the thread",
        "4. however a task ends: the parent goes on watching",
        "delivery.py",
        "except Exception as error:  # noqa: BLE001  whatever",
        "except ZeroDivisionError as error:  # whatever",
        (f"{_DELIVERY}a_key_that_cannot_be_computed_is_told_and_spoils_nothing",),
    ),
    Break(
        "a user's request class is left without ours",
        "4. a dead child's key is free within a second",
        "task.py",
        "if cls.Request != _REQUEST:",
        "if False:",
        (f"{_PARENT}a_users_own_request_class_does_what_ours_does_as_well",),
    ),
    Break(
        "a death is not told of a zombie",
        "4. a dead child's key is free within a second",
        "deaths.py",
        "in self._epoll.poll(timeout):",
        "in [event for event in self._epoll.poll(timeout) if not _lives(self._pids[event[0]])]:",
        (f"{_DEATHS}a_process_that_nobody_has_waited_for_yet_is_told_of_and_left_to_who_waits",),
    ),
    Break(
        "a child that is dead before it is watched is not told of",
        "4. a dead child's key is free within a second",
        "deaths.py",
        "            descriptor = _that_has_ended()",
        "            return",
        (f"{_DEATHS}a_process_that_is_gone_already_is_told_of_at_once[ByDescriptor]",),
    ),
    Break(
        "a number that another child has by now is not watched",
        "4. a dead child's key is free within a second",
        "deaths.py",
        "            self._watched.discard(pid)\n",
        "",
        (f"{_DEATHS}a_process_may_be_watched_again[ByDescriptor]",),
    ),
    Break(
        "a body is not interrupted",
        '5. with on_lost="raise" a lost lease reaches the body',
        "interrupt.py",
        "                signal.pthread_kill(_main_thread_id(), _NUMBER)\n",
        "",
        (f"{_INTERRUPT}a_body_that_goes_on_is_interrupted_once",),
    ),
    Break(
        "a body is interrupted again and again",
        '5. with on_lost="raise" a lost lease reaches the body, once',
        "interrupt.py",
        "            self._over = True\n            raise",
        "            raise",
        (f"{_INTERRUPT}a_body_that_goes_on_is_interrupted_once",),
    ),
    Break(
        "what comes after a body is interrupted",
        "6. an interruption is for the run that lost its lease",
        "interrupt.py",
        "        _at_work = self._outer\n        self._over = True\n",
        "",
        (f"{_FOUND}a_lease_that_ends_after_its_body_interrupts_nobody",),
    ),
    Break(
        "another's signal is swallowed",
        "the signals of others keep their meaning",
        "interrupt.py",
        "if callable(_before_us):",
        "if False:",
        (f"{_INTERRUPT}a_signal_that_we_did_not_send_goes_where_it_went_before",),
    ),
    Break(
        "the token is not handed down",
        "1. what a stale holder's children write can be told",
        "parent.py",
        "        headers[HEADER] = lease",
        "        pass",
        (f"{_RETRIES}what_a_body_sends_carries_its_token",),
    ),
    Break(
        "a retry passes for a child of its run",
        "1. what a stale holder's children write can be told",
        "parent.py",
        'if headers.get("id") == request.id else',
        "if False else",
        (f"{_RETRIES}a_retry_was_sent_under_the_lease_of_its_parent_and_not_its_own",),
    ),
    Break(
        "a fork takes connections and keeper along",
        "5. the lease is renewed: no thread survives a fork",
        "app.py",
        "            if found is None or found.pid != os.getpid():\n                found = Coordination",
        "            if found is None:\n                found = Coordination",
        (f"{_FOUND}a_child_coordinates_by_itself",),
    ),
    Break(
        "a worker with children starts on a store in memory",
        "1. at most one holds the lease: memory serves one process",
        "worker.py",
        '.startswith("memory://") and coordinated.has_children:',
        '.startswith("memory://") and False:',
        (f"{_BAD_START}a_worker_with_children_does_not_start_on_a_store_in_memory[prefork]",),
    ),
    Break(
        "a pool that is made of prefork's is taken for one without children",
        "4. its key is free within a second: the parent gives it back",
        "worker.py",
        "for each in pool_cls.__mro__)",
        "for each in pool_cls.__mro__[:1])",
        (f"{_BAD_START}a_worker_with_children_does_not_start_on_a_store_in_memory[custom]",),
    ),
    Break(
        "a worker is not told of time limits that are too short",
        "9. a run that meets no store is tried again",
        "worker.py",
        "    if short:\n",
        "    if False:\n",
        (f"{_LIMITS}a_worker_says_as_it_starts_which_limits_are_that_short",),
    ),
    Break(
        "a worker of greenlets is not told that its connections can run out",
        "9. nothing is lost: kombu loses messages there",
        "worker.py",
        "        if isinstance(most, int) and 0 < most < greenlets + _KOMBUS_OWN:",
        "        if False:",
        (f"{_GREENLETS}a_worker_whose_greenlets_can_run_out_of_connections_says_so[by default]",),
    ),
)
