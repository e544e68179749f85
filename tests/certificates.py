"""An authority of a test's own, and the certificates that it issues, made by the openssl command; good for a day."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel.tls import TlsFiles

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Authority:
    """Its files are in `folder`."""

    folder: Path

    @property
    def file(self) -> Path:
        """What clients check certificates by."""
        return self.folder / "authority.pem"

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder)
        made._request("authority", "-x509", "-subj", "/CN=authority of a test")
        return made

    def issue(self, name: str, *names: str) -> TlsFiles:
        """A listener's certificate for these names: `DNS:host` or `IP:address`."""
        signing = ("-CA", str(self.file), "-CAkey", str(self.folder / "authority.key"))
        subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={','.join(names)}")
        self._request(name, "-x509", *signing, *subject, "-addext", "basicConstraints=CA:FALSE")
        return TlsFiles(self.folder / f"{name}.pem", self.folder / f"{name}.key")

    def _request(self, name: str, *arguments: str) -> None:
        outputs = ("-keyout", str(self.folder / f"{name}.key"), "-out", str(self.folder / f"{name}.pem"))
        try:
            subprocess.run(
                ["openssl", "req", "-days", "1", *_KEY, *arguments, *outputs], check=True, capture_output=True
            )
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
