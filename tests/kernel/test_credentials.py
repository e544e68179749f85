"""Token files and what servers know of tokens."""

import os
import stat
from pathlib import Path

import pytest

from kernel.credentials import (
    Actor,
    CredentialError,
    Role,
    TokenVerifier,
    create_token_file,
    read_token,
    token_digest,
)


def test_a_token_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        token = create_token_file(tmp_path / "credentials" / "user.token")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "credentials" / "user.token").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o700
    assert read_token(tmp_path / "credentials" / "user.token") == token


def test_tokens_differ(tmp_path: Path) -> None:
    assert create_token_file(tmp_path / "a") != create_token_file(tmp_path / "b")


def test_a_token_file_is_never_replaced(tmp_path: Path) -> None:
    token = create_token_file(tmp_path / "user.token")
    with pytest.raises(FileExistsError):
        create_token_file(tmp_path / "user.token")
    assert read_token(tmp_path / "user.token") == token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601, 0o700])
def test_a_token_file_that_is_wider_is_refused_with_a_remedy(tmp_path: Path, mode: int) -> None:
    create_token_file(tmp_path / "user.token")
    (tmp_path / "user.token").chmod(mode)
    with pytest.raises(CredentialError, match="chmod 600"):
        read_token(tmp_path / "user.token")


def test_a_token_file_may_be_narrower(tmp_path: Path) -> None:
    token = create_token_file(tmp_path / "user.token")
    (tmp_path / "user.token").chmod(0o400)
    assert read_token(tmp_path / "user.token") == token


def test_a_link_is_not_a_token_file(tmp_path: Path) -> None:
    create_token_file(tmp_path / "user.token")
    (tmp_path / "link").symlink_to(tmp_path / "user.token")
    with pytest.raises(CredentialError, match="cannot read"):
        read_token(tmp_path / "link")


def test_a_pipe_is_not_a_token_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(CredentialError, match="not a regular file"):
        read_token(tmp_path / "pipe")


def test_a_folder_is_not_a_token_file(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="not a regular file"):
        read_token(tmp_path)


def test_an_absent_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="absent"):
        read_token(tmp_path / "absent")


@pytest.mark.parametrize(
    "content", ["", "short", "two words here and more", "x" * 513, "ünvisible-token-of-some-length"]
)
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "user.token"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(CredentialError, match="holds no token") as caught:
        read_token(path)
    assert not content or content not in str(caught.value)


def test_a_verifier_tells_roles_apart() -> None:
    verifier = TokenVerifier({Role.USER: token_digest("one"), Role.WORKER: token_digest("two")})
    assert verifier.role_of("one") is Role.USER
    assert verifier.role_of("two") is Role.WORKER
    assert verifier.role_of("three") is None
    assert verifier.role_of("") is None
    assert verifier.role_of(token_digest("one")) is None


@pytest.mark.parametrize("digest", ["", "x" * 64, "A" * 64, token_digest("t")[:-1], token_digest("t") + "0"])
def test_a_digest_in_another_form_is_refused(digest: str) -> None:
    with pytest.raises(ValueError, match="64 lowercase hexadecimal"):
        TokenVerifier({Role.USER: digest})


def test_two_roles_with_one_token_are_refused() -> None:
    with pytest.raises(ValueError, match="same token"):
        TokenVerifier({Role.USER: token_digest("t"), Role.WORKER: token_digest("t")})


def test_an_actor_is_role_and_name() -> None:
    assert str(Actor(Role.WORKER, "worker-1.eu@home_2")) == "worker:worker-1.eu@home_2"


@pytest.mark.parametrize("name", ["", "a:b", "a b", "-a", ".a", "ü", "x" * 129, "a\n"])
def test_an_actor_with_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name is 1 to 128"):
        Actor(Role.USER, name)


def test_while_a_token_is_exchanged_the_old_and_the_new_one_prove_the_role() -> None:
    verifier = TokenVerifier({Role.USER: (token_digest("old"), token_digest("new")), Role.WORKER: token_digest("w")})
    assert [verifier.role_of(token) for token in ("old", "new", "w", "other")] == [
        Role.USER,
        Role.USER,
        Role.WORKER,
        None,
    ]
