"""API keys: who may send requests."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from .problems import Problem


class Keys:
    """The accepted API keys. Only their hashes are kept in memory.

    Args:
        keys: The keys; none accepts every request.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._hashes = [_hash(key) for key in keys]

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the headers X-Api-Key and Authorization of a request.

        Raises:
            Problem: Neither of them holds an accepted key.
        """
        if not self._hashes:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        hashed = _hash(given)
        # All keys are compared, and each in constant time, so that the time tells nothing of them.
        if sum([hmac.compare_digest(hashed, each) for each in self._hashes]) == 0:
            raise Problem(
                401,
                "auth_failed",
                "the API key is missing or wrong; send it as X-Api-Key or as Authorization: Bearer",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
