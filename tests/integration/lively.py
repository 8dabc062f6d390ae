"""A command for `coord run` that says in a file that it lives: ``python lively.py FILE [WORD ...]``.

What it says are lines of JSON: a word, its process, the term that it runs in, this machine's monotonic clock. Words:

* ``stubborn``: it hears SIGTERM, and goes on.
* ``polite``: it ends with status 0 at SIGTERM.
* ``family``: it has a child, which lives on when it ends, and is stubborn.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

_PAUSE = 0.01


def main(path: str, *words: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(word: str) -> None:
        line = {"word": word, "pid": os.getpid(), "term": int(os.environ["COORD_TERM"]), "at": time.monotonic()}
        os.write(file, f"{json.dumps(line)}\n".encode())

    def hear(number: int, _: object) -> None:
        say(signal.Signals(number).name)
        if number == signal.SIGTERM and "polite" in words:
            sys.exit(0)

    if {"stubborn", "polite"} & set(words):
        signal.signal(signal.SIGTERM, hear)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hear)
    if "family" in words and os.fork() == 0:
        signal.signal(signal.SIGTERM, hear)
    say("begin")
    while True:
        say("lives")
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])
