"""Public addresses: a server that nobody gave, but another one led to, is reached by no other.

What a name stands for is looked up once, all of it is looked at, and the connection goes to what was looked at: a name
that leads elsewhere when it is asked for again leads nowhere.
"""

from __future__ import annotations

import ipaddress
import socket

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class NotPublicError(Exception):
    """A name stands for an address that only this machine or its network has; `args` holds that."""


def is_public(address: str) -> bool:
    """True of an address that is not of this machine, of a private network, link-local or reserved.

    >>> [is_public(each) for each in ("8.8.8.8", "10.0.0.1", "169.254.169.254", "::1", "64:ff9b::10.0.0.1")]
    [True, False, False, False, False]

    Raises:
        ValueError: it is a name.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        within = found.sixtofour or (ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else None)
        return found.is_global and (within is None or within.is_global)
    return found.is_global


def connect_to_public(
    at: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
) -> socket.socket:
    """Connect as `socket.create_connection` does, to a server all of whose addresses are public.

    Raises:
        NotPublicError: one is not.
        OSError: it has none, or none answers.
    """
    host, port = at
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(where[0]) for *_, where in found)
    for address in addresses:
        if not is_public(address):
            raise NotPublicError(address)
    failed = OSError(f"{host} has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout, source_address)
        except OSError as error:
            failed = error
    raise failed
