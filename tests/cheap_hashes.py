"""The settings of an installation, with hashes that cost nothing; for processes that tests start."""

from config.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
