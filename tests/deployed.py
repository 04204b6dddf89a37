"""Our settings for `manage.py check --deploy`, with the warnings that were thought about left out."""

from config.settings import *  # noqa: F403

SILENCED_SYSTEM_CHECKS = [
    "security.W002",  # config.middleware sends X-Frame-Options, and CSP's frame-ancestors
    "security.W005",  # HSTS for sub-domains: they are not ours to decide about
    "security.W008",  # the proxy in front redirects to HTTPS; health checks come without
    "security.W021",  # the browsers' preload list: the owner of the domain decides
]
