"""A certificate authority of one's own, for a server that nobody else vouches for. Needs the extra `secure`."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from corral.private import write_new

YEARS = 10
"""For which certificates are valid. Who wants shorter ones has an authority already, and uses that."""
_SKEW = dt.timedelta(hours=1)  # by which the clocks of two machines may differ


class Files(NamedTuple):
    """Where everything was written."""

    ca: Path
    cert: Path
    key: Path


class Authority:
    """A key that signs certificates, and its own certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def new(cls) -> Authority:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corral's own authority")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Authority:
        """The one that was written to these files. ValueError if they hold none."""
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key} is not a key that was made here")  # noqa: TRY004  # the file is wrong, not the call
        return cls(private, x509.load_pem_x509_certificate(certificate.read_bytes()))

    def save(self, certificate: Path, key: Path) -> None:
        """Write it to new files. FileExistsError if there are such."""
        write_new(key, _pem(self._key))
        write_new(certificate, self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, names: Sequence[str], certificate: Path, key: Path) -> None:
        """Write a new certificate, and its key, for a server or client of these names or IP addresses."""
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        signed = (
            _builder(subject, self._certificate.subject, own.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        write_new(key, _pem(own))
        write_new(certificate, signed.public_bytes(serialization.Encoding.PEM))

    def write(self, folder: Path, names: Sequence[str]) -> Files:
        """Everything that a server of these names needs, in a folder."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = Files(folder / "ca.pem", folder / "cert.pem", folder / "cert.key")
        self.save(files.ca, folder / "ca.key")
        self.issue(names, files.cert, files.key)
        return files


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=365 * YEARS))
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
