"""The engine: the life of a job, in order.

    enqueue.py      the one front door; a job is born `ready` or `scheduled`
    ticks.py        due jobs become ready
    claim.py        ready jobs become running, each held by exactly one node under a fence
    execute.py      the child: runs attempts, one process per slot
    complete.py     what the holder reports becomes the next state
    rescue.py       jobs whose node went quiet
    worker.py       the node: the loop that ties these together; no rules of its own

Beside them: ``backoff.py`` (retry timing), ``clock.py`` (the database's time), ``idempotency.py``
(replies kept for a second ask), ``turn.py`` (completing and claiming as one statement), ``journal.py``
(log lines and progress), ``heartbeat.py`` (the lease), ``fuse.py`` (its end), and the processes of a node: ``template.py``
forks them, ``children.py`` is the node's side, ``frames.py`` and ``marks.py`` what runs between.
"""
