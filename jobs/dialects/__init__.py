"""Dialects: the HTTP APIs of other systems, spoken over our jobs by our verbs.

A dialect translates and nothing else. It has no models and no templates, so it is a plain package and no
installed app, and these are its five names:

    __init__.py   which system and version it is, and what is left out
    urls.py       the table of contents of the foreign specification, in its order
    views.py      parse, call one verb, answer; one small base view sets what all share
    wire.py       both directions between foreign fields and ours: plain functions and dict literals
    errors.py     one table from our errors to the foreign status and envelope

``views`` and ``wire`` become packages where one file would be long. An ``if`` about the rules of jobs
in a view means that a verb is missing. A quirk that is copied on purpose has a comment that says so.

To add one: write the package, name it in ``jobs.dialects.urls``, which mounts it at the paths that
its clients expect for the default cluster and under its own name for every cluster; give each action
its verb of ``authn.permissions``; take its first path segments out of ``YARDMASTER_BASE_PATH`` in
``config.mistakes``; add ``tests/dialects/<name>``. Authentication, roles, the bound cluster and the
limits of bodies are those of every surface, see ``clusters.surfaces``. Dialects import neither each
other nor the native API.
"""
