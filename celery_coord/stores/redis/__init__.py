"""The store on Redis or Valkey. Nothing else in this package imports `redis` or `redis_lock`.

What is in the server, for a key K in the namespace NS; the braces are a hash tag, so that all of it lives in one slot:

    lock:{NS:K}              string, the owner      the lease; python-redis-lock's key, so both exclude each other
    lock-signal:{NS:K}       list, the owner        wakes one of those who wait, as python-redis-lock does
    coord1-cooldown:{NS:K}   string, the owner      the quiet period
    coord1-lease:{NS:K}      string                 token, ttl, owner and label of the newest lease, a line each
    coord1-done:{NS:K}:RUN   string                 the generation in which a run ended, when, whether all were told,
                                                    and by which owner, if it held its lease; "b" while no end is
                                                    known
    coord1-records:{NS:K}    hash                   what the holders of the key wrote down: a beat's claims
    coord1-ask:{NS:K}        string                 what the holder is asked for: to step down
    coord-layout:{NS:K}      string, a number       a later layout than this one is in use for the key

One act is one script is one round trip. Time is the server's.

The number behind ``coord`` is the layout. Two versions of this library whose layouts differ may run side by side, as
in a rolling upgrade. What every layout must keep to, so that they never both run a body:

* It takes no lease while ``lock:{NS:K}`` is there and is not its own, and knows what earlier layouts wrote.
* It sets ``lock:{NS:K}`` to the owner in the step that grants a lease, keeps it for as long as the lease lasts, removes
  it only while it is its own, and then wakes who waits at ``lock-signal:{NS:K}``: so python-redis-lock's locks, whose
  acts ask for no layout, and the runs of all versions exclude each other.
* A later layout than 1, when it grants a lease, begins a quiet period or remembers a run, sets ``coord-layout:{NS:K}``
  to its number in the same step, for as long as anything of that lasts.
* A version that finds a later layout there than its own admits nobody: whoever asks is sent again for later, until a
  worker of the later version takes it.
"""

from celery_coord.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
