"""How the hosts of nodes were doing, minute by minute, and how the database answered them."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class HostSample(models.Model):
    """One minute of one host; null where something could not be measured. Bytes and counts are of that
    minute, the rest as it was at its end."""

    pk = models.CompositePrimaryKey("minute", "host")
    minute = models.DateTimeField()
    host = models.CharField(max_length=255)
    # 100 is all of its cores; the memory is that of its nodes.
    cpu_percent = models.FloatField(null=True)
    memory_bytes = models.BigIntegerField(null=True)
    disk_read_bytes = models.BigIntegerField(null=True)
    disk_write_bytes = models.BigIntegerField(null=True)
    disk_used_percent = models.FloatField(null=True)
    # How long heartbeats took that read, and those that wrote.
    read_p50_seconds = models.FloatField(null=True)
    read_p95_seconds = models.FloatField(null=True)
    read_p99_seconds = models.FloatField(null=True)
    write_p50_seconds = models.FloatField(null=True)
    write_p95_seconds = models.FloatField(null=True)
    write_p99_seconds = models.FloatField(null=True)
    # Rows of the whole database.
    rows_read = models.BigIntegerField(null=True)
    rows_written = models.BigIntegerField(null=True)
    connections_active = models.PositiveIntegerField(null=True)
    connections_idle = models.PositiveIntegerField(null=True)
    connections_max = models.PositiveIntegerField(null=True)
    database_bytes = models.BigIntegerField(null=True)
    wal_bytes = models.BigIntegerField(null=True)

    objects: ClassVar[models.Manager[HostSample]] = models.Manager()

    class Meta:
        db_table = "host_sample"

    def __str__(self) -> str:
        return f"{self.host} {self.minute:%Y-%m-%d %H:%M}"
