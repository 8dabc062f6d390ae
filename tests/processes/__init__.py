"""Processes: whose connections are whose, how many there are, and what is left of them after 100,000 tasks.

python -m tests.processes.endurance                    a short run
python -m tests.processes.endurance --tasks 100000     the long run

Nothing here trusts a client's own word: the server lists who is connected to it, and the system whose socket that is.
"""
