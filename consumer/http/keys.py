"""Keys for programs: random words of which a file holds only the hashes, with scopes and tenants.

    [keys.shop]
    sha256 = "..."
    scopes = ["read"]
    tenants = ["shop"]      # "*" for all
    requests_per_s = 20     # as the settings say, unless given

The hash needs no salt and no slowness: a key has 256 random bits.
"""

import logging
import secrets
import time
import tomllib
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumer.errors import Misconfigured
from consumer.http.scopes import Caller, Scope

log = logging.getLogger(__name__)

KEY_PREFIX = "seenit_"
# How soon a key is known, or known no more, that was put into the file or taken out of it.
READ_EVERY_S = 5.0


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: frozenset[Scope]
    tenants: frozenset[str] = Field(min_length=1)
    requests_per_s: float | None = Field(default=None, gt=0)


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    keys: dict[str, _Entry]


class KeyRing:
    """The keys of a file, which is read again when it changes."""

    def __init__(self, file: Path) -> None:
        """Raises Misconfigured for a file that cannot be read, or is not as it should be."""
        self._file = file
        self._callers = read_keys(file)
        self._read_at_s = time.monotonic()
        self._version = _version(file)

    def find(self, key: str) -> Caller | None:
        """Find out whose key this is; None for a key that is not in the file."""
        return self.holder(hash_key(key)) if key.startswith(KEY_PREFIX) else None

    def holder(self, key_hash: str) -> Caller | None:
        """Find out whose key has this hash; None if no key in the file has it."""
        if time.monotonic() - self._read_at_s > READ_EVERY_S:
            self._read_again()
        return self._callers.get(key_hash)

    def _read_again(self) -> None:
        self._read_at_s, version = time.monotonic(), _version(self._file)
        if version == self._version:
            return
        try:
            self._callers, self._version = read_keys(self._file), version
            log.info("read %d keys", len(self._callers))
        except Misconfigured as error:
            log.error("the keys stay as they were: %s", error)


def read_keys(file: Path) -> dict[str, Caller]:
    """Read a file of keys: who has the key of each hash. Raises Misconfigured."""
    try:
        keys = _KeysFile.model_validate(tomllib.loads(file.read_text())).keys
    except OSError as error:
        raise Misconfigured(f"SEENIT_SERVE_KEYS_FILE names {file}, which cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"SEENIT_SERVE_KEYS_FILE names {file}, which is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Misconfigured(f"SEENIT_SERVE_KEYS_FILE names {file}; in it {where}: {first['msg']}") from None
    return {
        entry.sha256: Caller(name, entry.scopes, None if "*" in entry.tenants else entry.tenants, entry.requests_per_s)
        for name, entry in keys.items()
    }


def new_key() -> str:
    """Make a key."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """Hash a key as the file has it."""
    return sha256(key.encode()).hexdigest()


def _version(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
