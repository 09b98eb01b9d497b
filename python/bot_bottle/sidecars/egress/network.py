"""To which addresses may a host name lead the proxy?

A route allows a name; whoever runs that name's DNS chooses the address. So names that lead to the sidecar itself, to
the host's network or to a cloud's metadata service are refused unless the operator says otherwise. The check sits
where asyncio resolves names, so what was checked is what is connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot_bottle.errors import InvalidInputError

Address = tuple[str, int]
_IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Network:
    """``private``: networks allowed although they are not public. ``connect_to``: (host, port) → where to go."""

    private: Sequence[_IpNetwork] = ()
    connect_to: Mapping[Address, Address] = ()  # type: ignore[assignment]

    @classmethod
    def parse(cls, private: str, connect_to: str) -> Network:
        """From the text of ``EGRESS_PRIVATE_NETWORKS`` and ``EGRESS_CONNECT_TO``.

        Raises:
            InvalidInputError: one of them is not as documented.
        """
        try:
            networks = [ipaddress.ip_network(each.strip()) for each in private.split(",") if each.strip()]
        except ValueError as error:
            raise InvalidInputError(f"EGRESS_PRIVATE_NETWORKS is a comma list such as 10.0.0.0/8: {error}.") from None
        places = {}
        for each in filter(None, (each.strip() for each in connect_to.split(","))):
            name, _, place = each.partition("=")
            try:
                places[_address(name)] = _address(place)
            except ValueError:
                raise InvalidInputError(
                    f"EGRESS_CONNECT_TO is a comma list of host:port=address:port, not {each!r}."
                ) from None
        return cls(networks, places)

    def allows(self, address: str) -> bool:
        """Whether to connect to this IP address."""
        ip = _inner(ipaddress.ip_address(address.partition("%")[0]))
        # fec0::/10, private in its day, counts as global to Python.
        public = ip.is_global and not ip.is_multicast and not getattr(ip, "is_site_local", False)
        return public or any(ip in network for network in self.private)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError
    return host.strip("[]").lower(), int(port)


def _inner(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        return ip.ipv4_mapped or ip.sixtofour or ip
    return ip


class GuardedLoop(asyncio.SelectorEventLoop):
    """An event loop whose connections obey a :class:`Network`. An IP literal passes: only a route names one."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        place = self._network.connect_to.get((host, port))
        if place is not None:
            return await super().getaddrinfo(*place, family=family, type=type, proto=proto, flags=flags)
        found = await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        if host is None or flags & socket.AI_PASSIVE:  # to listen on, not to connect to
            return found
        allowed = [each for each in found if self._network.allows(str(each[4][0]))]
        if not allowed:
            raise OSError(f"{host} leads to a private address, which egress does not connect to")
        return allowed
