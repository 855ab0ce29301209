"""Certificates of one cluster: an authority of its own, and a key per host; and keys for ssh.

Owns how they are made and kept. Dask asks both ends of a connection for a certificate of the
cluster's authority and doesn't compare names: whoever holds one may talk to the whole cluster.
Private keys are written readable for their owner alone; the authority's stays on the machine that
started the cluster.
"""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from nearfield.errors import UsageError

VALID_DAYS = 30
AUTHORITY_DAYS = 3650
"""An authority that changes locks out whatever runs; its key never leaves this machine."""
CLOCK_SKEW = datetime.timedelta(hours=1)

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.x509.oid import NameOID
except ModuleNotFoundError as missing:
    raise UsageError(
        "certificates need the package cryptography: pip install 'nearfield[machines]'"
    ) from missing


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, as PEM text."""

    certificate: str
    key: str

    @property
    def ends(self) -> datetime.datetime:
        """From then on nobody accepts it."""
        return x509.load_pem_x509_certificate(self.certificate.encode()).not_valid_after_utc


@dataclass(frozen=True)
class Authority:
    """Signs the certificates of one cluster."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate that everybody checks against."""
        return _pem(self.certificate)

    def issue(self, name: str, address: str | None = None) -> Identity:
        """A new key and certificate for a host or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        builder = (
            _builder(subject, self.certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_alternative(address or name)]), False)
        )
        return Identity(_pem(builder.sign(self.key, hashes.SHA256())), _key_pem(key))


def authority(folder: Path, name: str) -> Authority:
    """The authority kept in `folder` (ca.pem, ca.key); a new one where there is none or it ends."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except FileNotFoundError:
        return _new_authority(folder, name)
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    # what it signs must not outlive it
    if left < datetime.timedelta(days=VALID_DAYS) or not isinstance(
        key, ec.EllipticCurvePrivateKey
    ):
        return _new_authority(folder, name)
    return Authority(certificate, key)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can ever have read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(path)


def write_ssh_key(path: Path) -> None:
    """A new key pair (Ed25519) in the files `path` and `path`.pub, as ssh-keygen makes them."""
    key, ssh = ed25519.Ed25519PrivateKey.generate(), serialization.PrivateFormat.OpenSSH
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    private = key.private_bytes(serialization.Encoding.PEM, ssh, serialization.NoEncryption())
    # the private half last: where it is, the pair is whole
    write_secret(path.with_suffix(".pub"), f"{public.decode()} nearfield\n")
    write_secret(path, private.decode())


def _new_authority(folder: Path, name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(f"nearfield cluster {name}")
    builder = (
        _builder(subject, subject, key, days=AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    made = Authority(builder.sign(key, hashes.SHA256()), key)
    write_secret(folder / "ca.key", _key_pem(key))
    write_secret(folder / "ca.pem", made.pem)
    return made


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: int = VALID_DAYS,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
