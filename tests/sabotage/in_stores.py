"""Breaks in the stores: Redis's scripts, what is around them, and the reference in memory."""

from __future__ import annotations

from tests.sabotage.breaks import Break

_CONTRACT = "tests/contract/test_stores.py::test_"
_REDIS = "tests/redis/test_redis_store.py::test_"
_FOUND = "tests/redis/test_found_in_redis.py::test_"
_FOUND_IN_MEMORY = "tests/unit/test_found_by_sabotage.py::test_"
_LINES = "tests/redis/test_lines.py::test_"

_ONCE_MORE = f"{_LINES}what_failed_at_once_is_asked_once_more_and_what_took_its_time_is_not"
_FAULTS = "tests/faults/test_faults_"
_LOCKS = "tests/redis/test_locks.py::test_"
_ONE_ACT = "tests/faults/test_faults_one_act.py::test_"
_SERVERS = "tests/servers/test_"
_LAYOUTS = "tests/layouts/test_layouts.py::test_"

_ACQUIRE = "stores/redis/acquire.lua"
_ENDED = "stores/redis/ended.lua"
_HOLD = "stores/redis/hold.lua"
_RENEW = "stores/redis/renew.lua"
_SETTLE = "stores/redis/settle.lua"
_MEMORY = "stores/memory.py"

_GENERATIONS = f"{_CONTRACT}a_later_generation_of_a_run_takes_over_and_an_earlier_one_or_a_stranger_does_not"
_COOLING = f"{_CONTRACT}a_cooling_key_is_refused_to_those_who_heed_it_with_who_left_it_and_time_left"
_STILL_OURS = f"{_CONTRACT}a_quiet_period_begins_only_if_the_lease_was_still_ours"
_LONGER_STAYS = f"{_CONTRACT}a_quiet_period_that_lasts_longer_stays"
_RENEWED_FOR_OWNER = f"{_CONTRACT}leases_are_renewed_in_one_go_and_only_for_their_owner"
_KEPT_FOR_OWNER = f"{_CONTRACT}a_key_is_kept_only_for_its_owner"
_DONE = f"{_CONTRACT}a_run_that_is_remembered_as_done_is_told_so_before_all_else"
_LATEST = f"{_CONTRACT}a_run_is_remembered_by_its_latest_generation"
_OWN_PERIOD = f"{_CONTRACT}a_run_is_not_refused_by_the_quiet_period_that_it_left_itself"
_ASKS_AGAIN = f"{_CONTRACT}an_owner_that_asks_again_is_granted_the_same_lease_again"
_SETTLED_ONCE = f"{_CONTRACT}settled_once_is_settled"
_LOST_IS_DONE = f"{_CONTRACT}a_run_that_lost_its_lease_is_remembered_all_the_same"
_WITHOUT_LEASE = f"{_CONTRACT}a_run_without_a_lease_is_kept_away_by_a_quiet_period_and_by_its_own_end"
_TOLD_LATER = f"{_CONTRACT}an_end_that_was_not_told_can_be_called_told_and_not_the_other_way_round"
_GROWS = f"{_CONTRACT}a_token_is_larger_than_every_earlier_one"
_FACT_OVER_KNOWN = f"{_CONTRACT}a_fact_is_written_only_over_what_the_writer_knew"
_FACT_BY_HOLDER = f"{_CONTRACT}a_fact_is_written_only_by_the_holder_and_taken_back_by_one_who_was"
_HELD = f"{_CONTRACT}a_held_key_is_refused_with_holder_token_label_and_time_left"
_BEGUN_LATE = f"{_CONTRACT}a_run_is_known_as_begun_for_as_long_after_its_last_renewal_as_after_its_beginning"
_BEGUN_AGAIN = f"{_CONTRACT}a_run_is_known_as_begun_for_as_long_after_its_second_admission_as_after_its_first"
_MADE_WHOLLY = f"{_LINES}a_connection_is_made_wholly_or_not_at_all"
_NOBODY_WAITS = (
    f"{_SERVERS}sentinel.py::test_an_answer_that_nobody_waits_for_any_more_is_not_taken_for_that_to_another_question"
)
_NO_TWO = f"{_CONTRACT}no_two_threads_hold_a_key_at_once"

IN_REDIS = (
    Break(
        "a fact is written though nobody waits for it any more",
        "15. a claim that was given up is none",
        "stores/redis/record.lua",
        'if till ~= "0" and now > tonumber(till) then',
        "if false then",
        (f"{_REDIS}a_fact_that_reaches_the_server_too_late_is_not_written",),
    ),
    Break(
        "a fact is written by one who holds nothing, in Redis",
        "15. the claim is only for the one who holds the lease",
        "stores/redis/record.lua",
        'if by_holder == "1" and redis.call("GET", lock) ~= owner then',
        "if false then",
        (f"{_FACT_BY_HOLDER}[user@redis-6.2]",),
    ),
    Break(
        "a fact is written over what the writer did not know, in Redis",
        "15. at most once even while two beats believe that they lead",
        "stores/redis/record.lua",
        'if checked == "1" and current ~= was then',
        "if false then",
        (f"{_FACT_OVER_KNOWN}[user@redis-6.2]",),
    ),
    Break(
        "a fact that stands there already is another's, in Redis",
        "15. an answer that got lost costs no instant",
        "stores/redis/record.lua",
        "if current == value then",
        "if false then",
        (f"{_FACT_OVER_KNOWN}[user@redis-6.2]",),
    ),
    Break(
        "acquire grants a held key",
        "1. at most one holds the lease",
        _ACQUIRE,
        "if holder and holder ~= owner then",
        "if false then",
        (f"{_NO_TWO}[user@redis-6.2]", f"{_HELD}[user@redis-6.2]"),
    ),
    Break(
        "acquire ignores the generation: the same one takes over",
        "7. a redelivered message waits while its earlier delivery may live",
        _ACQUIRE,
        "tonumber(held_generation) >= tonumber(generation)",
        "tonumber(held_generation) > tonumber(generation)",
        (f"{_GENERATIONS}[user@redis-6.2]",),
    ),
    Break(
        "acquire refuses a later generation",
        "7. a retry or a replacement takes over",
        _ACQUIRE,
        "if held_run ~= run or tonumber(held_generation) >= tonumber(generation) then",
        "if true then",
        (f"{_GENERATIONS}[user@redis-6.2]",),
    ),
    Break(
        "acquire does not compare the run: a stranger of a later generation takes over",
        "1. at most one holds the lease",
        _ACQUIRE,
        "held_run ~= run or",
        "held_run and",
        (f"{_GENERATIONS}[user@redis-6.2]",),
    ),
    Break(
        "acquire is not idempotent",
        "7. an answer that got lost does not make a run meet itself",
        _ACQUIRE,
        "if holder and holder ~= owner then",
        "if holder then",
        (f"{_ASKS_AGAIN}[user@redis-6.2]",),
    ),
    Break(
        "acquire does not heed the quiet period",
        "12. a run that arrives in the quiet period is dropped",
        _ACQUIRE,
        'if heed_cooldown == "1" then',
        "if false then",
        (f"{_COOLING}[user@redis-6.2]",),
    ),
    Break(
        "acquire heeds the quiet period of the run itself",
        "7. a message is never dropped on account of its own earlier delivery",
        _ACQUIRE,
        "if cooled_by and string.match(cooled_by, parts) ~= run then",
        "if cooled_by then",
        (f"{_OWN_PERIOD}[user@redis-6.2]",),
    ),
    Break(
        "acquire ignores that the run is done",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _ACQUIRE,
        "if ended_ms then",
        "if false then",
        (f"{_DONE}[user@redis-6.2]",),
    ),
    Break(
        "a token has no floor",
        "1. tokens grow, also after a FLUSHALL",
        _ACQUIRE,
        "math.max((token or 0) + 1, now[1] * 1000000 + now[2])",
        "(token or 0) + 1",
        (f"{_REDIS}a_token_is_larger_than_every_earlier_one_also_after_a_flushall",),
    ),
    Break(
        "a token is the server's time alone",
        "1. tokens grow, also after a clock was set back",
        _ACQUIRE,
        "math.max((token or 0) + 1, now[1] * 1000000 + now[2])",
        "now[1] * 1000000 + now[2]",
        (f"{_REDIS}a_token_is_larger_than_every_earlier_one_also_after_the_servers_clock_was_set_back",),
    ),
    Break(
        "renew does not compare the owner",
        "6. only the owner's own lease is renewed",
        _RENEW,
        'if redis.call("GET", lock) ~= owner then',
        'if not redis.call("GET", lock) then',
        (f"{_RENEWED_FOR_OWNER}[user@redis-6.2]",),
    ),
    Break(
        "settle does not compare the owner",
        "6. only the owner's own lease is released or abandoned",
        _SETTLE,
        "if holder ~= owner then",
        "if not holder then",
        (f"{_STILL_OURS}[user@redis-6.2]",),
    ),
    Break(
        "settle begins the quiet period though the lease was lost",
        "12. the cooldown begins only if the lease was still ours",
        _SETTLE,
        "if holder ~= owner then",
        'if holder ~= owner then\n  redis.call("SET", cooldown, owner, "PX", tonumber(cooldown_ms) + 1)',
        (f"{_STILL_OURS}[user@redis-6.2]",),
    ),
    Break(
        "settle shortens a quiet period that lasts longer",
        "12. a quiet period that was earned stays",
        _SETTLE,
        "if left ~= -1 and left <= tonumber(cooldown_ms) then",
        "if true then",
        (f"{_LONGER_STAYS}[user@redis-6.2]",),
    ),
    Break(
        "settle is not idempotent",
        "5. an answer that got lost is no lost lease",
        _SETTLE,
        'redis.call("LINDEX", signal, 0) == owner',
        "false",
        (f"{_SETTLED_ONCE}[user@redis-6.2]",),
    ),
    Break(
        "settle does not remember a run that lost its lease",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _SETTLE,
        'remember(done, generation, remember_ms, told, holder == owner and owner or "")',
        'if holder == owner then remember(done, generation, remember_ms, told, "s") end',
        (f"{_LOST_IS_DONE}[user@redis-6.2]",),
    ),
    Break(
        "renew lets go of what is known of the holder",
        "11. who held the key can be said",
        _RENEW,
        'redis.call("PEXPIRE", lease, ttl_ms + 86400000)\n',
        "",
        (f"{_REDIS}a_lease_that_is_renewed_keeps_what_is_known_of_it",),
    ),
    Break(
        "settle leaves a key for ever",
        "4. what a lease leaves behind ends by itself",
        _SETTLE,
        'end\nredis.call("PEXPIRE", signal, 10000)\n',
        "end\n",
        (f"{_REDIS}what_a_lease_leaves_behind_ends_by_itself",),
    ),
    Break(
        "a run is forgotten while its own quiet period lasts",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        "stores/redis/store.py",
        "return milliseconds(max(remember, cooldown)) if remember else 0",
        "return milliseconds(remember)",
        (f"{_FOUND}a_run_is_remembered_for_as_long_as_its_own_quiet_period_lasts",),
    ),
    Break(
        "hold does not compare the owner",
        "6. only the owner's own lease is kept for its retry",
        _HOLD,
        "if holder ~= owner then",
        "if not holder then",
        (f"{_KEPT_FOR_OWNER}[user@redis-6.2]",),
    ),
    Break(
        "the end of an earlier generation overwrites that of a later one",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _ENDED,
        "if not known or tonumber(known) < tonumber(generation) then",
        "if true then",
        (f"{_LATEST}[user@redis-6.2]",),
    ),
    Break(
        "an end that was told stays untold",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _ENDED,
        'if known == generation and told == "1" then',
        "if false then",
        (f"{_TOLD_LATER}[user@redis-6.2]",),
    ),
    Break(
        "an end that was told is called untold",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _ENDED,
        "if not known or tonumber(known) < tonumber(generation) then",
        "if not known or tonumber(known) <= tonumber(generation) then",
        (f"{_TOLD_LATER}[user@redis-6.2]",),
    ),
    Break(
        "a run is done in this very generation alone",
        "7. a message whose run handed over to a retry is spent",
        _ENDED,
        "tonumber(ended_generation) >= tonumber(generation)",
        "tonumber(ended_generation) == tonumber(generation)",
        (f"{_DONE}[user@redis-6.2]",),
    ),
    Break(
        "a run without a lease is not told that it is done",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        "stores/redis/refuses.lua",
        "if ended_ms then",
        "if false then",
        (f"{_WITHOUT_LEASE}[user@redis-6.2]",),
    ),
    Break(
        "a run without a lease does not heed the quiet period",
        "12. a run that arrives in the quiet period is dropped",
        "stores/redis/refuses.lua",
        "if cooled_by and",
        "if false and",
        (f"{_WITHOUT_LEASE}[user@redis-6.2]",),
    ),
    Break(
        "cool shortens a quiet period that lasts longer",
        "12. a quiet period that was earned stays",
        "stores/redis/cool.lua",
        "if left ~= -1 and left <= tonumber(cooldown_ms) then",
        "if true then",
        (f"{_LONGER_STAYS}[user@redis-6.2]",),
    ),
    Break(
        "a server that will not write takes leases away",
        "5. a holder that cannot renew is told so by its own clock",
        "stores/redis/store.py",
        'if isinstance(answer, RedisError) and "WRONGTYPE" not in str(answer):',
        "if False:",
        (f"{_REDIS}a_server_that_will_not_write_for_a_while_takes_no_lease_away",),
    ),
    Break(
        "a line goes back to the idle ones after an interrupted answer",
        "1. nobody takes another's answer for its own",
        "stores/redis/lines.py",
        "            line.close()\n            self._all.discard(line)\n            raise",
        "            self._idle.append(line)\n            raise",
        (f"{_LINES}an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one",),
    ),
    Break(
        "a lost answer is not asked for again",
        "9. a connection that was closed is no outage",
        "stores/redis/lines.py",
        "            if time.monotonic() - began >= self._timeout:\n                raise",
        "            raise",
        (f"{_FOUND}a_connection_that_the_server_closed_is_no_outage", _ONCE_MORE),
    ),
    Break(
        "an act that took its time is asked for once more",
        "9. bounded in time: whoever waits for the store holds a slot of the worker",
        "stores/redis/lines.py",
        "if time.monotonic() - began >= self._timeout:",
        "if False:",
        (_ONCE_MORE,),
    ),
    Break(
        "each caller opens a connection of its own",
        "9. a few connections to a process, however many ask",
        "stores/redis/lines.py",
        "if len(self._all) >= self._most:",
        "if False:",
        (
            f"{_LINES}however_many_ask_there_are_no_more_connections_than_allowed",
            f"{_LINES}one_who_finds_no_free_connection_does_not_wait_for_ever",
        ),
    ),
    Break(
        "a later layout keeps nobody away from a lease",
        "1. two versions side by side never both run a body",
        _ACQUIRE,
        "if later then",
        "if false then",
        (
            f"{_LAYOUTS}who_finds_a_later_layout_admits_nobody",
            f"{_LAYOUTS}the_quiet_period_of_the_later_version_is_obeyed_too",
        ),
    ),
    Break(
        "a later layout keeps nobody away who takes no lease",
        "12. its quiet period counts for every version",
        "stores/redis/refuses.lua",
        "if later then",
        "if false then",
        (f"{_LAYOUTS}who_finds_a_later_layout_admits_nobody",),
    ),
    Break(
        "the layout that is known keeps all away",
        "7. nothing is lost: only a later layout is not known",
        "stores/redis/layout.lua",
        "tonumber(used) > tonumber(ours)",
        "tonumber(used) >= tonumber(ours)",
        (f"{_LAYOUTS}a_layout_that_is_known_keeps_nobody_away",),
    ),
    Break(
        "a store that answers those who look has recovered",
        "9. who reads that it is over can rely on it",
        "stores/redis/trouble.py",
        "if not self._failures or (self._of_writes and not writes):",
        "if not self._failures:",
        ("tests/unit/test_troubles_are_told.py::test_a_trouble_of_writing_is_over_when_something_is_written",),
    ),
    Break(
        "an end that another followed at once is told as a loss",
        "11. nothing is told that is not so",
        _SETTLE,
        "if settled_before then",
        "if false then",
        (f"{_FAULTS}lost_answers.py::test_an_end_is_told_as_what_it_is_though_the_one_who_waited_for_it_was_faster",),
    ),
    Break(
        "too few replicas are enough",
        "1. what a promotion would lose is not granted",
        "stores/redis/servers.py",
        "TooFewReplicas(said, self._min_replicas) if said < self._min_replicas else None",
        "None",
        (
            f"{_SERVERS}min_replicas.py::test_a_lease_that_no_replica_knows_of_is_not_granted_and_is_given_back",
            f"{_SERVERS}min_replicas.py::test_without_replicas_nothing_is_renewed_settled_or_written_down",
        ),
    ),
    Break(
        "a primary that was replaced is believed",
        "1. it takes writes for some seconds, and loses them",
        "stores/redis/servers.py",
        "lines.only = primary",
        "pass",
        (
            f"{_SERVERS}sentinel.py::test_a_primary_that_was_replaced_is_not_believed_for_as_long_as_it_believes_in_itself",
        ),
    ),
    Break(
        "a lock stays with a primary that was replaced",
        "1. it takes writes for some seconds, and loses them",
        "stores/redis/locks.py",
        "        server.follow()  #",
        "        #",
        (f"{_SERVERS}sentinel.py::test_a_lock_outside_celery_follows_a_promotion_as_runs_do",),
    ),
    Break(
        "a connection whose making was cut short is used",
        "1, 2. the answer on its way would be taken for that to another question",
        "stores/redis/connecting.py",
        "        except BaseException:\n            self.disconnect()\n            raise\n",
        "        finally:\n            pass\n",
        (f"{_NOBODY_WAITS}[as it connects]",),
    ),
    Break(
        "an answer to a lock that nobody waits for is left to the next one",
        "1, 2. it would be taken for that to another question",
        "stores/redis/locks.py",
        "connection.disconnect()  # what",
        "pass  # what",
        (f"{_NOBODY_WAITS}[in a lock]",),
    ),
    Break(
        "a lock that could not be renewed once is renewed no more",
        "5. the lease is renewed while its holder works",
        "stores/redis/locks.py",
        "            except RedisError:\n",
        "            except _AWAY:\n",
        (f"{_LOCKS}a_lock_whose_renewal_was_refused_for_a_while_is_renewed_after_it",),
    ),
    Break(
        "a sentinel is forgotten where two threads ask",
        "9. the store is away only where no sentinel answers",
        "stores/redis/watchers.py",
        "*(other for other in self.sentinels if other is not sentinel)]",
        "*self.sentinels[1:]]",
        (f"{_SERVERS}sentinel.py::test_no_sentinel_is_forgotten_when_several_threads_ask_at_the_same_time",),
    ),
    Break(
        "a second admission is forgotten as soon as the first, in Redis",
        "7. if that one died it runs: its message is not dropped",
        _ENDED,
        "    keep(done, remember_ms)\n",
        "",
        (f"{_BEGUN_AGAIN}[user@redis-6.2]",),
    ),
    Break(
        "a connection to a socket whose making was cut short is used",
        "1. it would be one to another database",
        "stores/redis/connecting.py",
        "    redis.UnixDomainSocketConnection: _SocketConnection,\n",
        "",
        (f"{_MADE_WHOLLY}[a socket]",),
    ),
    Break(
        "a lock that was lost is renewed by two",
        "6. a lock is taken, or it is not",
        "stores/redis/locks.py",
        "        self._stop_lock_renewer()\n        self._lock_renewal_thread = None\n",
        "        if self._lock_renewal_thread and not self._lock_renewal_thread.is_alive():\n"
        "            self._lock_renewal_thread = None\n",
        (f"{_LOCKS}a_lock_that_was_lost_can_be_taken_again_also_before_its_renewals_notice",),
    ),
    Break(
        "a long body is forgotten as begun, in Redis",
        "7. if that one died it runs: its message is not dropped",
        _RENEW,
        "keep(done, remember_ms)",
        "",
        (f"{_BEGUN_LATE}[user@redis-6.2]",),
    ),
    Break(
        "all that is kept of a key is spread over slots",
        "a cluster: every key of one act in one slot",
        "stores/redis/names.py",
        'return f"coord{LAYOUT}-done:{self.tag}:{run}"',
        'return f"coord{LAYOUT}-done:{run}:{self.tag[1:-1]}"',
        (f"{_SERVERS}cluster_slots.py::test_all_that_is_kept_of_a_key_is_in_one_slot",),
    ),
    Break(
        "a slot that has moved is not found",
        "9. the store can be reached, elsewhere",
        "stores/redis/cluster.py",
        "_target(moved, host), (), moved\n                self._stale = True\n",
        "_target(moved, host), (), moved\n",
        (f"{_SERVERS}cluster.py::test_the_new_place_of_a_slot_is_learnt_from_the_first_who_is_sent_there",),
    ),
    Break(
        "one dead node takes the renewals of the others with it",
        "5. the lease is renewed while the body runs",
        "stores/redis/cluster.py",
        "answers[number] = answer\n        for",
        "answers[number] = answer\n        if any(isinstance(answer, RedisError) for answer in answers):\n"
        "            return [RedisConnectionError()] * len(answers)\n        for",
        (f"{_SERVERS}cluster.py::test_leases_on_healthy_primaries_are_renewed_while_another_stands_still",),
    ),
    Break(
        "one slot that is nobody's ends all renewals",
        "5. the lease is renewed while the body runs",
        "stores/redis/cluster.py",
        "            except RedisError as error:\n                answers[number] = error\n",
        "            except RedisError as error:\n                return [error] * len(requests)\n",
        (f"{_SERVERS}cluster.py::test_a_slot_that_is_nobodys_takes_no_other_lease_with_it",),
    ),
    Break(
        "who has waited for a connection is passed by who has not",
        "9. nobody waits while others take turns",
        "stores/redis/lines.py",
        "while self._waiters:",
        "while False:",
        (f"{_LINES}who_waits_for_a_connection_gets_one_before_those_who_came_later",),
    ),
    Break(
        "a forked child keeps its parent's sockets",
        "no connection is shared over a fork",
        "stores/redis/address.py",
        "            connection.disconnect()\n\n\nos.register",
        "            pass\n\n\nos.register",
        ("tests/processes/test_processes_fork.py::test_parent_and_child_have_connections_of_their_own_and_both_work",),
    ),
    Break(
        "an act waits for the resolver",
        "9. bounded in time by settings",
        "stores/redis/connecting.py",
        "        if not self._answered.wait(timeout):",
        "        if not self._answered.wait():",
        (f"{_ONE_ACT}an_act_on_a_host_whose_name_nobody_looks_up_ends_within_three_timeouts[acquire]",),
    ),
    Break(
        "each address of a name is waited for",
        "9. bounded in time by settings",
        "stores/redis/connecting.py",
        "began)) / addresses)",
        "began)))",
        (f"{_ONE_ACT}connecting_to_a_name_of_many_silent_addresses_takes_no_longer_than_to_one",),
    ),
    Break(
        "a start asks on though nobody answers",
        "9. bounded in time by settings",
        "stores/redis/trial.py",
        "        except _AWAY:\n            raise  # each",
        "        except ZeroDivisionError:\n            raise  # each",
        (f"{_ONE_ACT}a_process_that_starts_waits_for_a_silent_host_no_longer_than_for_an_act",),
    ),
    Break(
        "one silent node takes all the time in which to learn the map",
        "9. the store can be reached, past it",
        "stores/redis/cluster.py",
        "timeout=self._address.timeout / min(len(nodes), 4)",
        "timeout=self._address.timeout",
        (f"{_SERVERS}cluster.py::test_a_process_that_starts_asks_past_a_node_that_is_silent",),
    ),
    Break(
        "a node that does not say its name is nowhere",
        "9. the store can be reached, where it was asked",
        "stores/redis/cluster.py",
        'str(host) if host and host != "?" else asked[0]',
        "str(host)",
        (f"{_SERVERS}cluster_tls.py::test_a_slot_that_has_moved_is_followed[nothing]",),
    ),
    Break(
        "a lock is given up by one renewal that was not answered",
        "1. at most one holds the key, code outside Celery as well",
        "stores/redis/locks.py",
        "self._lock_renewal_thread is not threading.current_thread() or ",
        "True or ",
        (f"{_LOCKS}a_lock_that_could_not_be_renewed_while_the_server_stood_still_is_renewed_after_it",),
    ),
    Break(
        "who waits for a lock waits in one piece",
        "9. bounded in time by settings",
        "stores/redis/locks.py",
        "min(left, _LONGEST_WAIT)",
        "left",
        (f"{_LOCKS}who_waits_for_a_lock_learns_in_time_that_the_server_stands_still",),
    ),
)

IN_MEMORY = (
    Break(
        "a long body is forgotten as begun, in memory",
        "7. if that one died it runs: its message is not dropped",
        _MEMORY,
        "        self._keep(lease.key, run, lease.remember)\n",
        "",
        (f"{_BEGUN_LATE}[memory]",),
    ),
    Break(
        "a second admission is forgotten as soon as the first, in memory",
        "7. if that one died it runs: its message is not dropped",
        _MEMORY,
        "            self._keep(key, owner.run, remember)\n",
        "",
        (f"{_BEGUN_AGAIN}[memory]",),
    ),
    Break(
        "a fact is written by one who holds nothing, in memory",
        "15. the claim is only for the one who holds the lease",
        _MEMORY,
        "if by_holder and not self._is_holder(lease):",
        "if False:",
        (f"{_FACT_BY_HOLDER}[memory]",),
    ),
    Break(
        "a fact is written over what the writer did not know, in memory",
        "15. at most once even while two beats believe that they lead",
        _MEMORY,
        "if was is not None and current != was:",
        "if False:",
        (f"{_FACT_OVER_KNOWN}[memory]",),
    ),
    Break(
        "a fact that stands there already is another's, in memory",
        "15. an answer that got lost costs no instant",
        _MEMORY,
        "if current == value:",
        "if False:",
        (f"{_FACT_OVER_KNOWN}[memory]",),
    ),
    Break(
        "in memory: acquire grants a held key",
        "1. at most one holds the lease",
        _MEMORY,
        "if held and not again and not _supersedes(owner, held.holder):",
        "if False:",
        (f"{_NO_TWO}[memory]", f"{_HELD}[memory]"),
    ),
    Break(
        "in memory: the same generation takes over",
        "7. a redelivered message waits while its earlier delivery may live",
        _MEMORY,
        "held.generation < owner.generation",
        "held.generation <= owner.generation",
        (f"{_GENERATIONS}[memory]",),
    ),
    Break(
        "in memory: a later generation is refused",
        "7. a retry or a replacement takes over",
        _MEMORY,
        "held.generation < owner.generation",
        "False",
        (f"{_GENERATIONS}[memory]",),
    ),
    Break(
        "in memory: a stranger of a later generation takes over",
        "1. at most one holds the lease",
        _MEMORY,
        "held.run == owner.run and held.generation",
        "held.generation",
        (f"{_GENERATIONS}[memory]",),
    ),
    Break(
        "in memory: acquire does not heed the quiet period",
        "12. a run that arrives in the quiet period is dropped",
        _MEMORY,
        "cooling = self._look(key).cooling if heed_cooldown else None",
        "cooling = None",
        (f"{_COOLING}[memory]",),
    ),
    Break(
        "in memory: a run heeds its own quiet period",
        "7. a message is never dropped on account of its own earlier delivery",
        _MEMORY,
        "return None if cooled_by and cooled_by.run == owner.run else cooling",
        "return cooling",
        (f"{_OWN_PERIOD}[memory]",),
    ),
    Break(
        "in memory: a run is not told that it is done",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _MEMORY,
        "if ended and ended.until > now and ended.generation >= owner.generation:",
        "if False:",
        (f"{_DONE}[memory]", f"{_WITHOUT_LEASE}[memory]"),
    ),
    Break(
        "in memory: a token does not grow",
        "1. tokens grow",
        _MEMORY,
        "guard.token = max(guard.token + 1, int(self._clock.time() * 1_000_000))",
        "guard.token = int(self._clock.time() * 1_000_000)",
        (f"{_GROWS}[memory]",),
    ),
    Break(
        "in memory: renew does not compare the owner",
        "6. only the owner's own lease is renewed",
        _MEMORY,
        "if held is None or held.holder != lease.owner:\n            return False",
        "if held is None:\n            return False",
        (f"{_RENEWED_FOR_OWNER}[memory]",),
    ),
    Break(
        "in memory: settle does not compare the owner",
        "6. only the owner's own lease is released or abandoned",
        _MEMORY,
        "if held is None or held.holder != lease.owner:\n                guard",
        "if held is None:\n                guard",
        (f"{_STILL_OURS}[memory]",),
    ),
    Break(
        "in memory: settle begins the quiet period though the lease was lost",
        "12. the cooldown begins only if the lease was still ours",
        _MEMORY,
        "if held is None or held.holder != lease.owner:\n                guard",
        "if held is None or held.holder != lease.owner:\n"
        "                self._cool(lease.key, lease.owner, cooldown)\n"
        "                guard",
        (f"{_STILL_OURS}[memory]",),
    ),
    Break(
        "in memory: settle has a run forgotten while its own quiet period lasts",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _MEMORY,
        "max(remember, cooldown) if remember else 0.0",
        "remember",
        (f"{_FOUND_IN_MEMORY}a_run_is_remembered_for_as_long_as_its_own_quiet_period_lasts",),
    ),
    Break(
        "in memory: cool has a run forgotten while its own quiet period lasts",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _MEMORY,
        "max(remember, seconds) if remember else 0.0",
        "remember",
        (f"{_FOUND_IN_MEMORY}a_run_is_remembered_for_as_long_as_its_own_quiet_period_lasts",),
    ),
    Break(
        "in memory: hold does not compare the owner",
        "6. only the owner's own lease is kept for its retry",
        _MEMORY,
        "if held is None or held.holder not in (lease.owner, heir):",
        "if held is None:",
        (f"{_KEPT_FOR_OWNER}[memory]",),
    ),
    Break(
        "in memory: a longer quiet period is shortened",
        "12. a quiet period that was earned stays",
        _MEMORY,
        "if until >= guard.cool_until:",
        "if True:",
        (f"{_LONGER_STAYS}[memory]",),
    ),
    Break(
        "in memory: an end that was told stays untold",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _MEMORY,
        "elif before.generation == ended.generation and told:",
        "elif False:",
        (f"{_TOLD_LATER}[memory]",),
    ),
    Break(
        "in memory: the end of an earlier generation overwrites that of a later one",
        "7. if the earlier delivery succeeded it ends as a duplicate",
        _MEMORY,
        "if before is None or before.until <= now or before.generation < ended.generation:",
        "if True:",
        (f"{_LATEST}[memory]",),
    ),
)

IN_STORES = (*IN_REDIS, *IN_MEMORY)
