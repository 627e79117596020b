"""Users of a shared review: names, roles and hashed passwords, in a TOML file."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from pipelines.disk import locked, write_bytes
from pipelines.manifest import read_limited
from sanitizers.core.errors import PlanError, did_you_mean

#: What users may do: look; look and rule; all of that, and publish.
VIEWER, REVIEWER, ADMIN = "viewer", "reviewer", "admin"
ROLES = (VIEWER, REVIEWER, ADMIN)
#: Characters of a password.
SHORTEST, LONGEST = 10, 1_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# 64 MiB and three passes: what argon2-cffi and RFC 9106 advise; some 50 ms.
_HASHER = PasswordHasher()
# Compared with where there is no such user, so that the answer takes as long.
_NOBODY = _HASHER.hash("nobody has this password")


@dataclass(frozen=True)
class User:
    """Who is at the browser.

    Parameters
    ----------
    name : str
    role : {"viewer", "reviewer", "admin"}
    """

    name: str
    role: str

    @property
    def may_rule(self) -> bool:
        """Whether this user may rule on rows."""
        return self.role in {REVIEWER, ADMIN}

    @property
    def may_publish(self) -> bool:
        """Whether this user may publish what was ruled."""
        return self.role == ADMIN


@dataclass(frozen=True)
class Users:
    """The users of a file.

    Parameters
    ----------
    hashes : dict
        For each name its role, and the argon2 hash of its password.
    """

    hashes: dict[str, tuple[str, str]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises
        ------
        PlanError
            If it is missing or malformed, or others may write to it.
        """
        if not path.is_file():
            raise PlanError(
                f"no file of users {path}",
                do=f"sanitize review --users {path} --add-user NAME --role reviewer",
            )
        if path.stat().st_mode & 0o022:
            raise PlanError(f"others may write to {path}", do=f"chmod 600 {path}")
        try:
            value = tomllib.loads(read_limited(path).decode())
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{path} is not TOML: {error}") from None
        hashes = {}
        for name, entry in value.items():
            hashes[name] = _entry(path, name, entry)
        if not hashes:
            raise PlanError(f"{path} names no user")
        return cls(hashes)

    def sign_in(self, name: str, password: str) -> User | None:
        """The user of a name, if the password is right; takes as long if there is none."""
        role, known = self.hashes.get(name, ("", _NOBODY))
        try:
            _HASHER.verify(known, password[:LONGEST])
        except (Argon2Error, InvalidHashError):
            return None
        return User(name, role) if role else None


def add_user(path: Path, name: str, role: str, password: str) -> None:
    """Add a user to a file, or give one another role and password.

    Raises
    ------
    PlanError
        If the name, the role or the password will not do.
    """
    if not _NAME.fullmatch(name):
        raise PlanError(f"no user can be called {name!r}", expected="letters, digits and . _ @ -")
    if role not in ROLES:
        raise PlanError(f"no role {role!r}", do=did_you_mean(role, ROLES))
    if not SHORTEST <= len(password) <= LONGEST:
        raise PlanError(
            f"the password has {len(password)} characters", expected=f"{SHORTEST} to {LONGEST}"
        )
    with locked(path.with_name(f".{path.name}.lock"), 10.0, "another user is being added"):
        known = Users.read(path).hashes if path.is_file() else {}
        known[name] = (role, _HASHER.hash(password))
        parts = [
            f'["{one}"]\nrole = "{its}"\npassword = "{digest}"\n'
            for one, (its, digest) in sorted(known.items())
        ]
        write_bytes(path, "\n".join(parts).encode(), mode=0o600)


def _entry(path: Path, name: str, entry: object) -> tuple[str, str]:
    if not _NAME.fullmatch(name) or not isinstance(entry, dict):
        raise PlanError(f"{path} holds {name!r}", expected="a table for each user")
    role, digest = entry.get("role"), entry.get("password")
    if role not in ROLES:
        raise PlanError(f"{path}: {name} has the role {role!r}", expected=", ".join(ROLES))
    if not isinstance(digest, str) or not digest.startswith("$argon2id$"):
        raise PlanError(f"{path}: {name} has no argon2id hash", do="add the user again")
    return role, digest
