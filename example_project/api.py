"""An impatient API: ``python -m example_project.api`` asks for refreshes without end, as many clients of one would.

It knows nothing of keys, leases or quiet periods: it asks, and what is not needed is dropped.
"""

from __future__ import annotations

import signal
import threading
from itertools import cycle

from example_project import settings
from example_project.inventory import read_inventory
from example_project.tasks import refresh_cluster_state


def main() -> None:
    """Ask for the refresh of one cluster after the other, until a signal ends it."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    clusters = cycle(read_inventory(settings.INVENTORY))
    while not stop.wait(1 / settings.API_RATE):
        refresh_cluster_state.delay(next(clusters))


if __name__ == "__main__":
    main()
