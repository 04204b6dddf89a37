"""The engine: the life of a job, in order.

    enqueue.py      the one front door; a job is born `ready`, `scheduled` or `blocked`
    dependencies.py jobs that others had to wait for have ended, and these go on
    ticks.py        due jobs become ready, late ones fail
    claim.py        ready jobs become running, each held by exactly one node under a fence
    execute.py      the process child: runs attempts, one process per slot
    io_child.py     the io child: runs many jobs in one event loop
    reporter.py     what both say to their node
    complete.py     what the holder reports becomes the next state
    rescue.py       jobs whose node went quiet
    rollup.py       what happened becomes counts and histograms
    sightings.py    failures that look alike become groups
    prune.py        finished jobs that nobody needs any more
    upkeep.py       when such things are done beside the jobs, and by which node
    worker.py       the node: the loop that ties these together; no rules of its own

Of the front door: ``new_job.py`` (what may be asked), ``insert.py`` and ``insert_one.py`` (rows),
``repeat.py`` (the same job again), ``overflow.py`` (full queues) and ``preview.py`` (a look ahead). Of
people: ``started_kinds.py`` (what they may start), ``edit.py`` (a job that has not started),
``requeue.py`` (a copy of one) and ``waiting.py`` (why a job does not run now).

Of schedules: ``schedules.py`` (what people do with them), ``definition.py`` and ``prerequisites.py``
(what one may say), ``schedule_rows.py`` (the row while it is changed), ``calendars.py``, ``arm.py``
(when one runs next) and ``upcoming.py`` (previews), ``missed.py`` (single instants), ``fires.py`` and
``fire_plan.py`` (due ones become jobs), ``schedule_work.py`` (which jobs), ``schedule_runs.py`` and
``run_upkeep.py`` (what follows), ``workflows.py`` with ``workflow_rows.py`` (graphs of their work) and
``declared.py`` (those that stand in code).

Of jobs made of steps: ``conductor.py`` (takes them from one step to the next), ``step_plan.py`` (what
comes next), ``step_parent.py`` (such a job as one look sees it), ``step_making.py`` (steps become jobs),
``step_rows.py`` (their rows), ``steps_restart.py`` (taken up again), ``step_terms.py`` (what a
definition may ask) and ``step_sweep.py`` (what should never be wrong).

Of alerts: ``alert_rules.py`` (what people do with them), ``alert_sight.py`` (what is wrong now),
``alerts.py`` (rules fire and recover) and ``alert_notices.py`` (whoever wants to know is told).

Of webhooks: ``webhooks.py`` (what happened to jobs made of steps becomes deliveries) and
``webhook_bodies.py`` (what those say). Payloads with secrets are stored as ``jobs.sealing`` says, and
``jobs.redaction`` takes their values out of what jobs say. ``secret_values.py`` brings named secrets to
the work, and ``reseal.py`` renews their key.

Beside them: ``backoff.py`` (retry timing), ``clock.py`` (the database's time), ``idempotency.py``
(replies kept for a second ask), ``turn.py`` (completing and claiming as one statement), ``journal.py``
(log lines and progress), ``bulk.py`` (one verb over all jobs that match a filter, with
``bulk_asking.py``, ``bulk_terms.py``, ``bulk_walk.py`` and ``bulk_count.py``), ``bounded.py`` (the same
at once, for few) and ``purge.py`` (all that waits in a queue), ``archive.py`` (to another cluster),
``restored.py`` (back from a backup), ``host_samples.py`` (how the hosts do), ``limits.py`` (queues that
may not start more), ``heartbeat.py`` (the lease) and ``fuse.py`` (its end), ``listening.py`` (hints),
``trouble.py`` (backing off), ``watchdog.py`` (loops that hang), ``health.py`` (what a node tells of
itself), and the processes of a node: ``template.py`` forks them, ``children.py``, ``child.py``,
``held.py`` (a job in its hands), ``child_reports.py`` (what became of it) and ``estimates.py`` are the
node's side, ``frames.py`` and ``marks.py`` what runs between, ``capture.py`` and ``output.py`` what
handlers print, ``last_words.py`` what they said before they died, ``leftovers.py`` and ``usage.py`` what
they take of the host, and ``sweep.py`` what nodes that are gone have left there.
"""
