"""The HTTP API of asyncjobs, a Go library with queues on NATS: its OpenAPI document 1.0.0.

Its *tasks* are our jobs of kind ``python``, its queues our queues, its schedules our schedules. Whatever
other surfaces made is shown as well, as far as there is a word for it here.

Where the original breaks its own document, the document is kept: 413 for bodies over the limit, 404 for a
schedule that is not there, ``queue`` of a new task, filters before the limit, minimums and words that are
checked, signatures that are checked when a task is made, a stream that goes on. What differs from both:

- A task and its place in the queue are one row: nothing is stored half, and no state is left behind.
- A retry is refused while the task is active or blocked and once it is complete; it keeps queue and id,
  has a try left, and drops a deadline that has passed. Only tasks that do not run can be deleted.
- A task whose dependencies cannot be complete any more is ``unreachable`` at once, and so are those that
  depend on it.
- An ``Idempotency-Key`` is stored with the task, whichever server is asked, and another body is 409.
- Numbers in payloads are kept as they are. Ids are UUIDs; lists are in the order of creation.
- What was cancelled or purged is ``terminated``. What a full queue refuses is 429 and leaves nothing.

Left out: the worker's side of the protocol and its events; ``features`` of ``/v1/info``, which the
original never sends either.
"""
