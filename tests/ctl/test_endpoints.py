"""How tracectl reaches programs that others run: by a file of endpoints that a person wrote."""

from pathlib import Path

import pytest

from ctl.connection import connect
from ctl.errors import CtlError
from ctl.home import Endpoints, Home, read_endpoints
from kernel.credentials import create_token_file
from kernel.tls import PUBLIC_AUTHORITIES, TlsFiles


def written(folder: Path, text: str) -> Endpoints:
    (folder / "endpoints.json").write_text(text)
    return read_endpoints(Home.at(folder))


def test_the_authority_of_the_certificates_lies_beside_the_file(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        '{"control": "10.0.0.1:7401,10.0.0.2:7401", "query": "10.0.0.3:7403",'
        ' "credentials": {"user": "user.token"}, "tls": {"authority": "authority.pem", "name": "trace.test"}}',
    )
    assert found.tls == TlsFiles(authority=tmp_path / "authority.pem", server_name="trace.test")
    assert (found.control, found.user_token_file) == ("10.0.0.1:7401,10.0.0.2:7401", tmp_path / "user.token")


@pytest.mark.parametrize("tls", [None, TlsFiles(), TlsFiles(authority=Path("/etc/a.pem"), server_name="trace.test")])
def test_what_is_written_is_what_is_read(tls: TlsFiles | None, tmp_path: Path) -> None:
    endpoints = Endpoints("a:1", "b:2", "c:3", ("d:4",), tmp_path / "user.token", tls=tls)
    assert written(tmp_path, endpoints.to_json()) == endpoints
    assert PUBLIC_AUTHORITIES.name == "public"  # the word that stands in files


def test_an_address_that_needs_tls_is_a_fault_of_the_file(tmp_path: Path) -> None:
    create_token_file(tmp_path / "user.token")
    written(tmp_path, '{"control": "10.0.0.1:7401", "query": "c:3", "credentials": {"user": "user.token"}}')
    with connect(tmp_path) as connection, pytest.raises(CtlError, match="only with TLS") as caught:
        _ = connection.tasks
    assert caught.value.where == str(tmp_path / "endpoints.json")
