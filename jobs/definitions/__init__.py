"""Definitions: queues, calendars, schedules and workflows of a cluster as text that people keep in files.

    queues:
      mail: {max_concurrency: 4}
    calendars:
      closed: {dates: ["2026-12-25"]}
    schedules:
      nightly:
        type: report:build
        queue: mail
        expression: 0 3 * * *
        exclusions: {calendars: [closed]}
        enabled: {production: true, default: false}
    workflows:
      close of day:
        nodes:
          - schedule: nightly
          - {schedule: send, depends_on: [nightly]}

Names are keys, and what refers to something does so by its name. A file says all of a thing: what it
leaves out has its default, except ``enabled`` and ``anchor_at``, which are left alone. What it does not
name is left alone as a whole. Of ``expression``, ``interval_seconds`` and ``run_at`` one says when.

    text.py      YAML, read and written
    document.py  what may stand in a file, and what is wrong with one
    stored.py    the same document of what a cluster holds
    changes.py   the difference of the two
    plan.py      how a cluster comes to be as the file says
"""
