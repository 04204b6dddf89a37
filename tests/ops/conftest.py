"""The API's keys, for a real scrape."""

from tests.api.conftest import _forget_health, make_key, viewer, viewer_key

__all__ = ["_forget_health", "make_key", "viewer", "viewer_key"]
