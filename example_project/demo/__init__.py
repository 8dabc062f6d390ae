"""``python -m example_project.demo``: the monitor at work on real servers, through three crashes.

Where things are:

    stage.py       the servers, the fleet, the workers, beats and the API: started, and ended without a trace
    processes.py   one of them
    story.py       what happens, act by act
    tally.py       what the journal says so far
    screen.py      what one sees meanwhile: a live view on a terminal, else a line a second
    verdict.py     whether the promises were kept: functions of a journal
    report.py      the verdict in words
"""
