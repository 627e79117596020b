"""Signing: a store's key, and whether a release was signed with it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pipelines.disk import json_object, locked, make_folder, pretty, write_bytes
from pipelines.manifest import MANIFEST, SIGNATURE, read_limited
from pipelines.store import Store
from sanitizers.core.errors import IntegrityError, PlanError

#: Where the keys of a store lie; no dataset can be called so.
KEYS = ".keys"
PRIVATE, PUBLIC = "private.pem", "public.pem"
ALGORITHM = "Ed25519"
#: A larger key or signature is refused, not read.
MAX_BYTES = 16 * 1024


@dataclass(frozen=True)
class Key:
    """A public key.

    Parameters
    ----------
    public : Ed25519PublicKey
    """

    public: Ed25519PublicKey

    @property
    def id(self) -> str:
        """Names the key: the first 16 hex characters of the SHA-256 of its raw bytes."""
        raw = self.public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return hashlib.sha256(raw).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> Key:
        """Read a public key in PEM.

        Raises
        ------
        PlanError
            If it is none, or no key of this kind.
        """
        try:
            found = load_pem_public_key(_read(path))
        except (ValueError, UnsupportedAlgorithm):
            found = None
        if not isinstance(found, Ed25519PublicKey):
            raise PlanError(
                f"{path} is no public key for {ALGORITHM}",
                expected="a file that 'sanitize keygen' wrote",
            )
        return cls(found)

    def signed(self, data: bytes, signature: bytes) -> bool:
        """Whether a signature of some bytes was made with the private half."""
        try:
            self.public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def make_key(store: Store) -> Path:
    """Make the key of a store; returns where its public half lies.

    Raises
    ------
    PlanError
        If there is one: what it has signed could not be checked any more.
    """
    folder = store.root / KEYS
    make_folder(folder)
    with locked(folder / ".lock", 10.0, "another process is making a key"):
        if (folder / PRIVATE).exists() or (folder / PUBLIC).exists():
            raise PlanError(
                f"the store {store.root} has a key",
                do=f"move {folder} away first; releases that it signed need it to be checked",
            )
        private = Ed25519PrivateKey.generate()
        text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_bytes(folder / PRIVATE, text, mode=0o600)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_bytes(folder / PUBLIC, public, mode=0o644)
    return folder / PUBLIC


def key_of_store(root: Path) -> Key | None:
    """The public key of a store; None where it has none."""
    path = root / KEYS / PUBLIC
    return Key.read(path) if path.is_file() else None


def sign(store: Store, staging: Path) -> None:
    """Sign the manifest of a release in the making, where the store has a key.

    Raises
    ------
    IntegrityError
        If the private key is damaged, or is not that of the public one.
    """
    key = key_of_store(store.root)
    if key is None:
        return
    path = store.root / KEYS / PRIVATE
    try:
        private = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, PlanError):
        private = None
    if not isinstance(private, Ed25519PrivateKey) or Key(private.public_key()).id != key.id:
        raise IntegrityError(
            f"{path} is missing or damaged", do="put it back, or move the folder of keys away"
        )
    signature = base64.b64encode(private.sign((staging / MANIFEST).read_bytes())).decode()
    value = {"algorithm": ALGORITHM, "key": key.id, "signature": signature}
    write_bytes(staging / SIGNATURE, pretty(value))


def check_signature(release: Path, key: Key) -> str:
    """What is wrong with the signature of a release; nothing where all is well."""
    path = release / SIGNATURE
    if not path.is_file():
        return f"{SIGNATURE} is missing"
    try:
        value = json_object(_read(path), path)
        signature = base64.b64decode(value["signature"], validate=True)
        whole = pretty({"algorithm": ALGORITHM, "key": key.id, "signature": value["signature"]})
    except (IntegrityError, PlanError, KeyError, TypeError, ValueError, binascii.Error):
        return f"{SIGNATURE} is malformed"
    if value.get("key") != key.id:
        return f"{SIGNATURE} is by the key {str(value.get('key'))[:16]!r}, not by {key.id}"
    # The text is compared as a whole, so that not even a space can change unseen.
    if path.read_bytes() != whole or not key.signed(read_limited(release / MANIFEST), signature):
        return f"{SIGNATURE} is not the signature of {MANIFEST} by the key {key.id}"
    return ""


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PlanError(f"{path} is larger than {MAX_BYTES // 1024} KiB")
        return path.read_bytes()
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None
