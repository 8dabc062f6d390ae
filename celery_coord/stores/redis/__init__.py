"""The store on Redis or Valkey. Nothing else in this package imports `redis` or `redis_lock`.

What is in the server, for a key K in the namespace NS; the braces are a hash tag, so that all of it lives in one slot:

    lock:{NS:K}             string, the owner      the lease; python-redis-lock's key, so both exclude each other
    lock-signal:{NS:K}      list, the owner        wakes one of those who wait, as python-redis-lock does
    coord-cooldown:{NS:K}   string, the owner      the quiet period
    coord-lease:{NS:K}      string                 token, ttl, owner and label of the newest lease, a line each
    coord-done:{NS:K}:RUN   string                 the generation in which a run ended, when, and whether all
                                                   were told; "b" while no end is known

One act is one script is one round trip. Time is the server's.
"""

from celery_coord.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
