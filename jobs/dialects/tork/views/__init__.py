"""The endpoints of this API."""
