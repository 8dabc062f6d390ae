"""The application of the other tests, in a process whose messages are files."""

from __future__ import annotations

from coord_project import *  # noqa: F403  its tasks, its settings, its signals
from whole_files import write_whole

write_whole()
