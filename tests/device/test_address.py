from __future__ import annotations

import pytest

from compress.device.address import parse_address
from compress.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name", "words", "python"),
    [
        ("ssh://pi@raspberrypi.local", "pi@raspberrypi.local", ["--", "pi@raspberrypi.local"], "python3"),
        ("ssh://Board", "Board", ["--", "Board"], "python3"),
        ("ssh://pi@10.0.0.7:2222/", "pi@10.0.0.7:2222", ["-p", "2222", "--", "pi@10.0.0.7"], "python3"),
        ("ssh://pi@[fe80::1]:22", "pi@[fe80::1]:22", ["-p", "22", "--", "pi@fe80::1"], "python3"),
        ("ssh://pi@x/home/pi/my%20venv/bin/python", "pi@x", ["--", "pi@x"], "/home/pi/my venv/bin/python"),
    ],
)
def test_an_address_becomes_a_command_of_the_systems_own_ssh(text, name, words, python):
    """User, host as it is written, port, and the interpreter there."""
    address = parse_address(text)
    assert (address.name, address.python) == (name, python)
    assert address.command[0] == "ssh"
    assert list(address.command[-len(words) :]) == words


def test_ssh_never_asks_and_notices_a_connection_that_is_gone():
    """A question would wait for ever."""
    assert {"BatchMode=yes", "ServerAliveInterval=15"} <= set(parse_address("ssh://x").command)


def test_another_command_may_stand_in_for_ssh(monkeypatch):
    """With options of its own."""
    monkeypatch.setenv("COMPRESS_SSH_COMMAND", "ssh -F 'my config'")
    assert parse_address("ssh://x").command[:3] == ("ssh", "-F", "my config")


@pytest.mark.parametrize(
    "text",
    ["", "raspberrypi", "telnet://pi@x", "ssh://", "ssh://-oProxyCommand=x", "ssh://-x@y", "ssh://a:b@c", "ssh://x:y",
     "ssh://x:99999", "ssh://x?y", "ssh://a b"],
)  # fmt: skip
def test_anything_else_is_refused(text):
    """Also what ssh would take for an option."""
    with pytest.raises(ConfigError, match=r"^a device must be ssh://\[user@\]host\[:port\]\[/path/of/python\], got "):
        parse_address(text)
