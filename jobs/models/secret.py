"""Named secrets of a cluster: written by people, read by nobody but the jobs that name them."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from django.db import IntegrityError, models
from django.db.models import F
from django.db.models.functions import Now

from clusters.deeds import deed
from jobs.errors import DuplicateSecret, InvalidJob, InvalidSecret, SecretNotFound
from jobs.redaction import MIN_LENGTH
from jobs.references import NAME
from jobs.sealing import first_key, key_of, opened_secret, seal_secret

MAX_NAME, MAX_VALUE_BYTES, MAX_DESCRIPTION = 100, 64 << 10, 500


class SecretQuerySet(models.QuerySet["Secret"]):
    def create_secret(self, name: str, value: str, *, by: str, description: str = "") -> Secret:
        """Keep a value under a name that nobody has used."""
        if not NAME.match(name):
            raise InvalidSecret(
                f"a name has 1 to {MAX_NAME} letters, digits and _ . - and begins with a letter or "
                "digit",
                field="name",
            )
        about = {"sealed": _sealed(name, value), "description": description, "updated_by": by[:200]}
        try:
            with deed("secrets.write", "secret", name, using=self.db):
                return self.create(name=name, **about)
        except IntegrityError:
            raise DuplicateSecret(field="name") from None

    def change(
        self,
        name: str,
        *,
        by: str,
        value: str | None = None,
        description: str | None = None,
        versions: Collection[int] | None = None,
    ) -> bool:
        """Put another value or description in the place of what is there.

        Jobs that start from now on get the new value. False if it is none of these versions.
        """
        changes: dict[str, object] = {"updated_by": by[:200], "updated_at": Now()}
        if value is not None:
            changes["sealed"] = _sealed(name, value)
        if description is not None:
            changes["description"] = description
        rows = self.filter(name=name)
        wanted = rows if versions is None else rows.filter(version__in=versions)
        with deed("secrets.write", "secret", name, using=self.db) as trace:
            if wanted.update(version=F("version") + 1, **changes):
                return True
            trace.is_done = False
            if not rows.exists():
                raise SecretNotFound
        return False

    def delete_secret(self, name: str) -> None:
        """Forget a secret; jobs that name it fail from now on."""
        with deed("secrets.write", "secret", name, using=self.db) as trace:
            if not self.filter(name=name).delete()[0]:
                raise SecretNotFound(f"there is no secret {name[:MAX_NAME]!r}", field="name")
            trace.after = {"is_deleted": True}

    def sealed_values(self, names: Collection[str]) -> dict[str, str]:
        """What is stored of these secrets, of those that are there."""
        return dict(self.filter(name__in=names).values_list("name", "sealed")) if names else {}

    def reseal(self) -> int:
        """Encrypt with the first key what another one encrypts; returns how many those were."""
        done = 0
        for secret in self.order_by("name"):
            if key_of(secret.sealed) != first_key():
                value = opened_secret(secret.name, secret.sealed)
                # Who changed it meanwhile did so with the first key.
                same = self.filter(name=secret.name, sealed=secret.sealed)
                done += same.update(sealed=seal_secret(secret.name, value))
        return done


def _sealed(name: str, value: str) -> str:
    if len(value) < MIN_LENGTH:
        raise InvalidSecret(
            f"at least {MIN_LENGTH} characters: a shorter one could not be masked", field="value"
        )
    try:
        if len(value.encode()) > MAX_VALUE_BYTES:
            raise InvalidSecret(f"at most {MAX_VALUE_BYTES} bytes", field="value")
        if "\0" in value:
            raise InvalidSecret("holds a NUL character, which no program takes", field="value")
        return seal_secret(name, value)
    except UnicodeEncodeError:
        raise InvalidSecret("not Unicode text: it holds half a character", field="value") from None
    except InvalidJob as error:
        raise InvalidSecret(str(error), field="value") from None


class Secret(models.Model):
    name = models.CharField(max_length=MAX_NAME, primary_key=True)
    # See jobs.sealing.
    sealed = models.TextField()
    description = models.CharField(max_length=MAX_DESCRIPTION, default="")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    updated_by = models.CharField(max_length=200)
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[Secret]] = SecretQuerySet.as_manager()

    class Meta:
        db_table = "secret"

    def __str__(self) -> str:
        return self.name
