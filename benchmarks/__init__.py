"""What coordination costs: ``python -m benchmarks``, or ``make bench``.

A worker (``-P solo``) drains a queue that was filled beforehand, in which the variants of one task take turns, a few
messages each, so that what disturbs the machine hits all of them alike. What a task takes is the time from one body to
the next of its kind, which covers everything that Celery does for it. Its time in a round is the one that the quickest
tenth of those stays within: what else runs on the machine only ever adds.

The *added cost* of a variant is its time less that of the bare task in the same round. The *floor* is what two round
trips in the body add: no lease is had for less.

    variants.py    which ways of guarding a task are measured
    tasks.py       those tasks; runs in the worker
    worker.py      the worker, and what it says of one round
    report.py      rounds of times, as a table and verdicts
"""
