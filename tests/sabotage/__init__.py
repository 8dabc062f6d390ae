"""Breaks the library on purpose, one safety check at a time: a test must fail each time.

python -m tests.sabotage                    all breaks
python -m tests.sabotage renewal owner      those with one of these words in their name
python -m tests.sabotage --list             the table for docs/contributing.md

The breaks are made in a copy of the checkout; the checkout itself is only read.
"""
