"""An authority of our own and a certificate for this machine, for servers that speak TLS."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from rtb.lab.servers.process import ServerFailed

LIMIT_S = 30.0
NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"
NEW = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


@dataclass(frozen=True)
class Certificates:
    """Files, PEM."""

    authority: Path
    certificate: Path
    """For 127.0.0.1 and localhost, signed by the authority; good for a day."""
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make them in `folder`, with openssl. Raises ServerFailed."""
    (folder / "names").write_text(f"{NAMES}\n")
    _openssl(folder, f"req -x509 {NEW} -days 1 -subj /CN=authority -keyout authority.key -out authority.pem")
    _openssl(folder, f"req {NEW} -subj /CN=server -keyout server.key -out server.csr")
    signed = "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 1 -extfile names"
    _openssl(folder, f"{signed} -out server.pem")
    return Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")


def _openssl(folder: Path, words: str) -> None:
    try:
        done = subprocess.run(
            ["openssl", *words.split()], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except FileNotFoundError:
        raise ServerFailed("no openssl on this machine: apt-get install openssl") from None
    except subprocess.TimeoutExpired:
        raise ServerFailed(f"openssl took more than {LIMIT_S:g} s") from None
    if done.returncode:
        raise ServerFailed(f"openssl: {' '.join(done.stderr.split())[-300:]}")
