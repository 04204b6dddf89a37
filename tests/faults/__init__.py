"""The fault suite: what the engine promises, while processes, networks and databases fail.

Real nodes, real signals, real databases. Jobs write what happens to them to a ledger that outlives every
process (`ledger.py`), clients keep one of their own, a trigger records each move of a job (`edges.py`),
and afterwards a checker that shares no code with the engine compares all of it (`checker.py`).

    make test                                the small runs, with all other tests
    make test-faults                         everything, at full length, about two hours
    python -m tests.faults --list            what there is
    python -m tests.faults kill freeze       only tests whose name holds one of these words
    python -m tests.faults --scale 0.05      counts and durations cut to a twentieth, for a trial
    python -m tests.faults --mutations       only: does every test go red without its guard?

Each test prints one line of JSON: test, verdict, backend, seed, commit, and its figures. A test that
cannot run on this host is `unknown`, never `ok`.
"""
