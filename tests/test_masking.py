"""Passwords in URIs are masked wherever a text may be printed or logged."""

import pytest

from bbh_dist.command_line import RunFailed, run
from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked

URIS = {
    "plain": "postgresql://me:hidden@host/db",
    "driver": "postgresql+psycopg://me:hidden@host:5432/db",
    "no user": "redis://:hidden@host:6379/0",
    "an at": "http://me:hid@den@host:5000",
    "a slash": "postgresql://me:hid/den@host/db",
    "a colon": "postgresql://me:hid:den@host/db",
    "encoded": "postgresql://me:hid%40den@host/db",
    "parameter": "postgresql://host/db?user=me&password=hidden&sslmode=require",
    "other parameter": "mysql://host/db?ssl_password=hidden",
    "no host": "postgresql://me:hidden",
    "in words": "cannot reach postgresql://me:hidden@host/db, nor http://you:hidden@other:80/x",
    "in a command": "python -m bbh_dist.tune --tracking-uri 'http://me:hidden@host:5000' --trials 3",
}
PARTS = ("hidden", "hid@", "hid/", "hid:", "hid%", "den@")


@pytest.mark.parametrize("kind", URIS)
def test_no_password_is_left(kind: str) -> None:
    found = masked(URIS[kind])
    assert not any(part in found for part in PARTS)
    assert "***" in found
    assert masked(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/x",
        "http://127.0.0.1:5000, twice",
        "https://[::1]:5000/",
        "sqlite:////home/me/a:b@c/mlflow.db",
        "postgresql://me@host:5432/db",
        "no URI: me@host",
        "epoch 3: 12:30:01",
    ],
)
def test_what_holds_no_password_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(Mistake("--x", "wrong", got=URIS["plain"])), 2),
        (RunFailed(URIS["in words"]), 1),
        (ValueError(URIS["an at"]), 1),
    ],
)
def test_no_error_of_any_library_prints_a_password(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr("signal.signal", lambda *arguments: None)

    def main(arguments: object) -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main, [])
    out, errors = capfd.readouterr()
    assert caught.value.code == code
    assert "***" in errors
    assert not any(part in out + errors for part in PARTS)
