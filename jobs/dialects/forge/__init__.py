"""The queue API of forge-jobs-api: the four routes of its 0.1 manual and the others of version 0.3.

Its *kinds* are our job types, its *workers* our nodes, its *cron schedules* our schedules that repeat.

    pending  in_progress  done  failed (waits for its next attempt)  dead (ended, and did not succeed)

What differs from the original, and why:

- Every failure has its envelope, also malformed JSON, a wrong method and missing credentials.
- An unknown queue or schedule is 404 where the original does nothing and says 200; a value out of range
  is 400 where it is changed without a word, and so is ``base_seconds`` above ``max_seconds``.
- Lists filter in SQL and ``total`` counts what matches, up to a limit; unknown statuses are 400.
- ``retry-all-by-status`` is for ``failed`` and ``dead``: it neither reruns what succeeded nor disturbs
  what runs. What is about many jobs does a bounded number of them and says how many.
- A job that waits for its next attempt holds its ``dedupe_key``; a retried one has its attempts anew.
- Slots belong to a node and not to one of its queues, so a node's slots show with every queue it serves.

Left out: its server's environment variables, for ``manage.py serve`` has its own flags, and ``/health``
at the bare path, which belongs to another dialect.
"""
