"""What can go wrong with keys and roles: errors of the domain, so that all surfaces know them."""

from __future__ import annotations

from jobs.errors import JobError


class InvalidAccess(JobError):
    """The key or the role cannot be as asked for."""

    code = "invalid"


class KeyNotFound(JobError):
    """There is no such key."""

    code = "not_found"


class RoleNotFound(JobError):
    """There is no such role."""

    code = "not_found"


class DuplicateKey(JobError):
    """A key with this name exists."""

    code = "duplicate_name"


class DuplicateUser(JobError):
    """A user with this name exists."""

    code = "duplicate_name"


class KeyEnded(JobError):
    """The key was revoked, or its time is over."""

    code = "invalid_transition"
