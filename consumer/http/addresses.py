"""Which addresses a caller may name. The service's own rights reach further than those of a tenant.

It may read object stores, folders and networks that hold pictures of all tenants. Whoever speaks for some of them only
may name nothing but public web addresses: an answer about another tenant's object would tell what it shows.
"""

from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network

from consumer.http.problems import Refused
from consumer.http.scopes import Caller
from consumer.settings import FetchSettings

WEB = ("https", "http")


def public_only(settings: FetchSettings) -> FetchSettings:
    """The settings by which a picture is fetched for a caller who does not speak for all tenants."""
    schemes = tuple(scheme for scheme in settings.schemes if scheme in WEB)
    return settings.model_copy(update={"schemes": schemes, "networks": (), "folders": (), "s3_endpoint": ""})


def check_address(caller: Caller, url: str | None, networks: Sequence[IPv4Network | IPv6Network] = ()) -> None:
    """Raise Refused for an address that this caller may not name.

    `networks` are those that consumers may reach, where they are to fetch it later: then nobody knows where it leads.
    """
    if url is None or caller.tenants is None:
        return
    if url.partition(":")[0].lower() not in WEB or networks:
        what = "addresses" if networks else "addresses of stores and folders"
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "other-tenant",
            f"With a key of all tenants alone {what} can be named here: they may lead to other tenants' pictures. Send "
            "the picture itself.",
        )
