"""The long run: beats crash, resign, pause and step down, the store stalls, and every instant is counted.

python -m tests.takeovers                      20 take-overs
python -m tests.takeovers --count 200          the long run
python -m tests.takeovers --seed 7             the same disasters in the same order as another run with this seed

Three real beats, a real server, real signals. The schedule's instants are known exactly, the server tells all that it
was asked to do, and the judge compares: no instant twice, none missing, one leader at a time.
"""
