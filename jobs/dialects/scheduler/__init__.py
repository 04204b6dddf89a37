"""The scheduler API of "Alphabet", a .NET system on Hangfire: version 1.0 of its jobs API reference.

Its *jobs* are our schedules and its *executions* the jobs that those made. Schedules that were made in
another way are shown as well, as far as their kind of work has a word here.

    HttpCall -> http    StoredProcedure -> procedure    CodeExecution -> python    FileOperation -> files

What differs from the original, and why:

- Cron is that of all our surfaces: a day of the month and a day of the week together mean either, where
  the original wants both; and where the clock is put back, only expressions whose minute or hour begins
  with ``*`` run twice, where the original runs ranges and steps twice as well.
- What the original stores and ignores has its effect: exclusions, dependencies, workflows, timeouts,
  ``effectiveFrom``, age limits of files. An unknown ``operation`` never deletes.
- Secrets come out as ``***``, and ``***`` in an update or import keeps what is stored.
- Lists of executions are in the order of their creation, which is that of an index; the original sorts
  by their start.

Left out: the accounts, tokens and cookies of the original (callers are those of every surface), its
dashboard at ``/hangfire``, and ``retryOnExceptions``, whose names are those of .NET.
"""
