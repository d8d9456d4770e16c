"""Fetch photos from the hosts that the owner of the server allows, and from no other place."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import SplitResult, urljoin, urlsplit

from .problems import Problem, shortened

_SECONDS = 20.0
_REDIRECTS = 3
_CHUNK = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Fetcher:
    """Fetch photos from allowed hosts.

    Args:
        hosts: The allowed hosts, as HOST or HOST:PORT. Without a port, only that of the scheme is allowed.
        max_bytes: The largest size of a photo in bytes.

    Raises:
        ValueError: A host is not written as expected.
    """

    def __init__(self, hosts: Sequence[str], max_bytes: int) -> None:
        self._hosts = {_read_host(each) for each in hosts}
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(4, "u2net-fetch")

    def check(self, url: str) -> None:
        """Check that an address may be fetched, as far as that is known before its host is looked up.

        Raises:
            Problem: The host is not allowed, or the address is none of http or https.
        """
        if not self._hosts:
            raise Problem(
                403,
                "urls_not_allowed",
                "this server fetches no addresses; upload the photo as a file, or start the server with "
                "--allow-urls HOST",
            )
        self._split(url)

    async def fetch(self, url: str) -> bytes:
        """Fetch a photo.

        Raises:
            Problem: The address is not allowed, or the photo cannot be fetched within size and time.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._fetch, url)

    def close(self) -> None:
        """Finish what runs, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _split(self, url: str) -> tuple[SplitResult, str, int]:
        """Split an address into its parts, its host and its port.

        Raises:
            Problem: The address is not allowed.
        """
        refused = Problem(
            403,
            "url_not_allowed",
            f"the address {shortened(url)} is not allowed, expected http or https at one of "
            f"{sorted(f'{host}:{port}' if port else host for host, port in self._hosts)}",
        )
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
        except ValueError:
            raise refused from None
        if parts.scheme not in _PORTS or parts.username is not None or not url.isprintable() or " " in url:
            raise refused
        usual = _PORTS[parts.scheme]
        port = port or usual
        if (host, port) not in self._hosts and not (port == usual and (host, 0) in self._hosts):
            raise refused
        return parts, host, port

    def _fetch(self, url: str) -> bytes:
        deadline = time.monotonic() + _SECONDS
        for _ in range(1 + _REDIRECTS):
            parts, host, port = self._split(url)
            connection = _Connection(host, port, parts.scheme == "https", deadline)
            try:
                found = self._get(connection, parts, url)
                if time.monotonic() >= deadline:  # the end of a connection that was cut looks like the end
                    raise TimeoutError
            except (OSError, HTTPException) as e:
                reason = "it took too long" if time.monotonic() >= deadline else str(e) or type(e).__name__
                raise _failed(url, reason) from e
            finally:
                connection.end()
            if isinstance(found, bytes):
                return found
            url = found
        raise _failed(url, f"it redirects more than {_REDIRECTS} times")

    def _get(self, connection: _Connection, parts: SplitResult, url: str) -> bytes | str:
        """Return the photo, or the address to which the host redirects."""
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii():
            raise _failed(url, "its path is not written in ASCII")
        headers = {"User-Agent": "u2net-hub", "Accept": "image/*", "Accept-Encoding": "identity"}
        connection.request("GET", target, headers=headers)
        with connection.getresponse() as response:
            if response.status in (301, 302, 303, 307, 308):
                return urljoin(url, response.headers.get("Location", ""))
            if response.status != 200:
                raise _failed(url, f"the host answers with status {response.status}")
            return self._read(response, url)

    def _read(self, response: HTTPResponse, url: str) -> bytes:
        data = bytearray()
        while chunk := response.read(_CHUNK):
            data += chunk
            if len(data) > self._max_bytes:
                raise _failed(url, f"the photo has more than {self._max_bytes:,} bytes")
        if response.length:  # the bytes that were announced and have not come
            raise _failed(url, "the connection ended before the photo did")
        return bytes(data)


class _Connection(HTTPConnection):
    """A connection to a public address of a host, which ends at a deadline.

    The host is looked up once, and the connection is made to the very address that was checked: a second look
    could find another one.
    """

    def __init__(self, host: str, port: int, encrypted: bool, deadline: float) -> None:
        super().__init__(host, port, timeout=max(deadline - time.monotonic(), 0.1))
        self._encrypted, self._deadline = encrypted, deadline
        self._timer: threading.Timer | None = None
        self._wire: socket.socket  # `sock` is None while the last answer of a connection is read

    def connect(self) -> None:
        error: OSError | None = None
        for family, address in public_addresses(self.host, self.port):
            plain = socket.socket(family, socket.SOCK_STREAM)
            try:
                plain.settimeout(max(self._deadline - time.monotonic(), 0.1))
                plain.connect((address, self.port))
                break
            except OSError as e:
                plain.close()
                error = e
        else:
            raise error or OSError("the host has no address")
        self.sock = self._wire = plain
        # a host that sends a byte now and then would never reach the limit of a single read
        self._timer = threading.Timer(max(self._deadline - time.monotonic(), 0.1), self._cut)
        self._timer.daemon = True
        self._timer.start()
        if self._encrypted:
            encrypted = ssl.create_default_context().wrap_socket(
                plain, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock = self._wire = encrypted
            encrypted.do_handshake()

    def end(self) -> None:
        """Close the connection."""
        if self._timer is not None:
            self._timer.cancel()
        self.close()

    def _cut(self) -> None:
        with suppress(OSError):  # it may be closed already
            self._wire.shutdown(socket.SHUT_RDWR)


def public_addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """Look up the addresses of a host.

    Raises:
        OSError: The host is unknown, or one of its addresses is not public.
    """
    found: list[tuple[socket.AddressFamily, str]] = []
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        text = str(address[0])
        if not is_public(text):
            raise OSError(f"{host} has an address that is not public")
        found.append((family, text))
    return found


def is_public(text: str) -> bool:
    """Tell whether an address belongs to the public internet, and so does any IPv4 address inside it."""
    address = ipaddress.ip_address(text.partition("%")[0])
    inside: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        teredo = address.teredo
        inside += [each for each in (address.ipv4_mapped, address.sixtofour, teredo and teredo[1]) if each]
        if address in _NAT64:
            inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return all(each.is_global and not each.is_multicast and not each.is_reserved for each in inside)


def _read_host(text: str) -> tuple[str, int]:
    """Read HOST or HOST:PORT; the port is 0 if there is none."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.path or parts.query or parts.username is not None:
        raise ValueError(f"got {text!r} as an allowed host, expected HOST or HOST:PORT, e.g. example.org")
    return host.rstrip(".").lower(), port or 0


def _failed(url: str, why: str) -> Problem:
    return Problem(400, "url_not_fetched", f"{shortened(url)} cannot be fetched: {why}")
