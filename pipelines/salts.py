"""The salt of a store: the secret that keys the hashes from which folds and samples come."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from pipelines.disk import locked, make_folder, write_bytes
from sanitizers.core.errors import IntegrityError, PlanError, StoreError

#: Bytes of a salt that is made here.
SALT_BYTES = 32
#: Bytes of a salt that is given, at least and at most.
LEAST, MOST = 16, 64


def check_salt(salt: bytes) -> None:
    """Refuse a salt that is too short or too long.

    Raises
    ------
    PlanError
    """
    if not LEAST <= len(salt) <= MOST:
        raise PlanError(f"the salt has {len(salt)} bytes", expected=f"{LEAST} to {MOST} bytes")


def make_salt(folder: Path, salt: bytes | None = None) -> None:
    """Write a salt into the folder of a store that has none yet.

    Parameters
    ----------
    folder : Path
    salt : bytes, optional
        By default a random one.
    """
    make_folder(folder)
    with locked(folder / ".lock", 60.0, "another process is making the store"):
        # Another process may have made it while this one waited.
        if not (folder / "salt").is_file():
            made = salt or secrets.token_bytes(SALT_BYTES)
            write_bytes(folder / "salt", made.hex().encode() + b"\n", mode=0o600)


def read_salt(path: Path) -> bytes:
    """Read the salt of a store.

    Raises
    ------
    IntegrityError
        If the file holds none.
    """
    try:
        salt = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        salt = b""
    if not LEAST <= len(salt) <= MOST:
        raise IntegrityError(f"{path} is damaged", expected=f"{LEAST} to {MOST} bytes as hex text")
    return salt


def salt_digest(salt: bytes) -> str:
    """Name a salt without giving it away; 16 hex characters."""
    return hashlib.sha256(b"dataset-sanitizer salt\0" + salt).hexdigest()[:16]
