"""Certificates for servers that speak TLS. tests/conftest.py makes the fixtures known."""

from __future__ import annotations

import shutil

import pytest

from rtb.lab.servers.certificates import Certificates, make_certificates


def _made(factory: pytest.TempPathFactory, name: str) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine: apt-get install openssl")
    return make_certificates(factory.mktemp(name))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What the tests' servers show, and the authority that signed it."""
    return _made(tmp_path_factory, "certificates")


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another authority, which signed nothing that the servers show."""
    return _made(tmp_path_factory, "strangers")
