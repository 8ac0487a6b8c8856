"""What a caller may do: scopes, and the tenants whose pictures are the caller's business."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, get_args

from consumer.events import DEFAULT_TENANT
from consumer.http.problems import Refused

Scope = Literal["read", "review", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody known by `name`; `tenants` is None for all of them, `requests_per_s` None for what the settings say."""

    name: str
    scopes: frozenset[Scope]
    tenants: frozenset[str] | None
    requests_per_s: float | None = None

    def require(self, scope: Scope) -> None:
        """Raise Refused for a caller without a scope."""
        if scope not in self.scopes:
            raise Refused(HTTPStatus.FORBIDDEN, "missing-scope", f"This needs the scope {scope!r}.")

    def tenant(self, asked: str | None) -> str:
        """Return the tenant that is asked for, or the caller's own where none is. Raises Refused."""
        if asked is None:
            asked = next(iter(self.tenants)) if self.tenants and len(self.tenants) == 1 else DEFAULT_TENANT
        if self.tenants is not None and asked not in self.tenants:
            raise Refused(HTTPStatus.FORBIDDEN, "other-tenant", "These are the pictures of a tenant that is not yours.")
        return asked

    def require_all_tenants(self) -> None:
        """Raise Refused for a caller who may change what holds for one tenant only."""
        if self.tenants is not None:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "other-tenant",
                "This holds for all tenants, of which not all are yours; name one.",
            )
