"""A small monitor of a datastore fleet: a template to copy, and what ``make demo`` shows at work.

Where things are:

    settings.py      everything that can be set, from the environment
    app.py           the Celery application
    tasks.py         discover, refresh_cluster_state, forget_dead_replicas: what is coordinated, and how
    components.py    discovery: the same discovery, on one worker of many, without a beat
    api.py           an impatient API, which asks for far more refreshes than anybody needs
    inventory.py     which clusters there are, from a file
    nodes.py         what nodes say of themselves
    state.py         what is known of each cluster; written only by the newest lease (fencing)
    journal.py       what happened, in the order of one server
    show.py          the state as a table
    demo/            all of it at work through three crashes, with a verdict

Begin with `tasks.py`.
"""
