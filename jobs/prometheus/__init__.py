"""What Prometheus is told of clusters: running totals, depths, nodes, schedules and upkeep, as text.

``figures`` reads one cluster: a fixed number of queries, and hardly a row of a job. ``families`` says
which metric each figure is; all names, labels and meanings are there. ``text`` writes them down, and
``exposition`` asks cluster by cluster. Requests of this server are in ``config.request_metrics``.
"""
