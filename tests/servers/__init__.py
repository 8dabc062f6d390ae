"""Every kind of server that `coord_url` can name, on every server that is tested.

See ``python -m tests.servers --help``.
"""
