"""The HTTP API of the Tork workflow engine, version 0.1.153, and its language of jobs in YAML and JSON.

Its *jobs* are our jobs of kind ``steps``, its tasks their steps, its scheduled jobs schedules of that
kind, its nodes and queues ours. A definition becomes a native one and is kept as it was sent, to be said
again. A task with an image is of kind ``container`` and one without of kind ``shell``.

Where the original differs from its own documentation, that is kept: results of retried steps, refusals
below sub-jobs, text in the message about a page's size. What differs from both:

- A job that has not begun can be cancelled, and whoever waits for a job that is cancelled hears of it.
- The error of a job is kept; an empty list ends its task; a bad expression is refused when it is sent.
- Secrets are never shown, neither where the original forgets them nor in replies to those who wait.
- A schedule may not have an expression that never fires. Its deletion stops what it has running.
- Totals are counted, and pages turned, up to a limit. Of a task's executions so many are shown.
- Documents with anchors, aliases and tags are refused, and those larger or deeper than our limits.
- A task without an image may have ``cmd`` in the place of ``run``: a program with its arguments.

Left out: coordinators as nodes and their queues, ``x-`` queues, ``redelivered``, and the original's
configuration; ``manage.py serve`` has its own.
"""
