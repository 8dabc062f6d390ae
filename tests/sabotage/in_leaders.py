"""Breaks in the election, and in the beat that goes by it."""

from __future__ import annotations

from tests.sabotage.breaks import Break

_ELECTION = "tests/unit/test_election.py::test_"
_BEAT = "tests/unit/test_beat.py::test_"
_FOUND = "tests/unit/test_found_by_sabotage.py::test_"

_NEVER_BOTH = f"{_ELECTION}two_never_both_act_inside_their_trust_windows"

IN_LEADERS = (
    Break(
        "a leader leads for as long as nobody told it otherwise",
        "14. unsure means no",
        "election.py",
        "return term is not None and not term.lost",
        "return term is not None",
        (f"{_ELECTION}a_paused_leader_that_wakes_does_not_lead", _NEVER_BOTH),
    ),
    Break(
        "a leader has a term for as long as nobody told it otherwise",
        "14. unsure means no",
        "election.py",
        "return None if term is None or term.lost else term.token",
        "return None if term is None else term.token",
        (f"{_BEAT}an_entry_that_comes_due_as_the_leadership_ends_is_left_to_the_next_leader",),
    ),
    Break(
        "the trust window opens after the request",
        "14. two never both act inside their trust windows",
        "election.py",
        "Holding(answer, self._clock, asked_at=asked_at",
        "Holding(answer, self._clock, asked_at=self._clock.monotonic()",
        (f"{_ELECTION}a_slow_answer_does_not_lengthen_the_trust_window", _NEVER_BOTH),
    ),
    Break(
        "a renewal lengthens the trust window from after the request",
        "14. two never both act inside their trust windows",
        "election.py",
        "term.renewed(asked_at)",
        "term.renewed(self._clock.monotonic())",
        (_NEVER_BOTH,),
    ),
    Break(
        "a leader acts on without renewal",
        "14. unsure means no",
        "election.py",
        '            return self._away("renewing the leadership of", error)',
        '            term.renewed(asked_at)\n            return self._away("renewing the leadership of", error)',
        (f"{_ELECTION}a_leader_without_a_store_leads_until_its_window_closes_and_not_longer", _NEVER_BOTH),
    ),
    Break(
        "a renewal that the store refuses is passed over",
        "14. two never both act",
        "election.py",
        "if not still_ours:",
        "if False:",
        (f"{_ELECTION}a_leader_whose_lease_was_forgotten_follows_at_its_next_renewal",),
    ),
    Break(
        "a leader that gives up goes on leading",
        "14. unsure means no",
        "election.py",
        "        self._term = None  # before the store is asked",
        "        # before the store is asked",
        (f"{_ELECTION}after_a_resignation_another_takes_over_at_once",),
    ),
    Break(
        "a leader gives up only after the store was asked",
        "14. two never both act",
        "election.py",
        "        self._term = None  # before the store is asked: "
        "whoever acts now must already find that it does not lead\n"
        "        try:\n"
        "            was_ours = self._store.settle(term.lease)",
        "        try:\n            was_ours = self._store.settle(term.lease)\n            self._term = None",
        (_NEVER_BOTH,),
    ),
    Break(
        "a leader whose work is stuck renews",
        "16. a beat whose loop is stuck stops leading",
        "election.py",
        "        if not self._healthy():\n            self._give_up(term)",
        "        if False:\n            self._give_up(term)",
        (f"{_ELECTION}a_leader_whose_work_is_stuck_resigns_and_does_not_campaign",),
    ),
    Break(
        "a beat is never stuck",
        "16. a beat whose loop is stuck stops leading",
        "beat.py",
        "return self._coordination.clock.monotonic() - self._ticked_at < self._coordination.settings.leader_ttl",
        "return True",
        (f"{_FOUND}a_beat_whose_loop_is_stuck_stops_leading",),
    ),
    Break(
        "a beat does not check before each entry",
        "14. before it acts it makes sure that it leads",
        "beat.py",
        "if self._election is None or self._election.term != term:",
        "if False:",
        (f"{_BEAT}an_entry_that_comes_due_as_the_leadership_ends_is_left_to_the_next_leader",),
    ),
    Break(
        "a deposed beat keeps its scheduler",
        "14. who no longer leads has nothing left to act with",
        "beat.py",
        "        if term is None:\n            self._close_inner()",
        "        if term is None:\n            pass",
        (f"{_BEAT}a_deposed_leader_closes_the_inner_scheduler",),
    ),
    Break(
        "a beat that ends does not resign",
        "16. another beat takes over within a second of a SIGTERM",
        "beat.py",
        "            self._election.resign()",
        "            pass",
        (f"{_BEAT}a_beat_that_was_asked_to_end_ends_though_the_exception_that_said_so_was_lost",),
    ),
    Break(
        "the banner campaigns",
        "14. who only shows a banner does not lead",
        "beat.py",
        "None if lazy else",
        "None if False else",
        (f"{_FOUND}a_beat_that_only_shows_its_banner_does_not_campaign",),
    ),
)
