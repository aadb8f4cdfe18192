"""Where a device is: ``ssh://user@host:port/path/of/its/python``."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from compress.errors import ConfigError

# What an option of ssh could not be taken for, nor a word of a shell.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%A-Za-z]*")
_FORM = "ssh://[user@]host[:port][/path/of/python]"
# A question would wait for ever, and a connection that is gone is to be known as such.
_OPTIONS = {"BatchMode": "yes", "ConnectTimeout": "20", "ServerAliveInterval": "15", "ServerAliveCountMax": "4"}


@dataclass(frozen=True, kw_only=True)
class Address:
    """A machine that is reached by a command.

    Attributes:
        name: what messages call it.
        command: what is run here, followed by a line for the other machine's shell.
        python: the interpreter there.
    """

    name: str
    command: tuple[str, ...]
    python: str = "python3"


def parse_address(text: str) -> Address:
    """The machine that ``text`` names, by the system's own ssh, whose keys, configuration and jump hosts all count.

    ``COMPRESS_SSH_COMMAND`` stands in for ``ssh``, with options of its own: ``ssh -F some/config``.

    Raises:
        ConfigError: if it is not of the form ``ssh://[user@]host[:port][/path/of/python]``.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as cause:
        raise ConfigError(f"a device must be {_FORM}, got {text!r}: {cause}") from cause
    host = parts.hostname or ""
    known = parts.scheme == "ssh" and parts.password is None and not parts.query and not parts.fragment
    if not known or not _HOST.fullmatch(host) or not (parts.username is None or _USER.fullmatch(parts.username)):
        raise ConfigError(f"a device must be {_FORM}, got {text!r}")
    # urlsplit lowers a host's letters, which are an alias in the user's configuration as they stand.
    written = parts.netloc.rpartition("@")[2]
    written = written.partition("]")[0] + "]" if written.startswith("[") else written.partition(":")[0]
    options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
    place = [] if port is None else ["-p", str(port)]
    who = f"{parts.username}@" if parts.username else ""
    program = shlex.split(os.environ.get("COMPRESS_SSH_COMMAND", "")) or ["ssh"]
    python = unquote(parts.path) if parts.path.strip("/") else "python3"
    return Address(
        name=f"{who}{written}" + ("" if port is None else f":{port}"),
        command=(*program, "-T", *options, *place, "--", f"{who}{written.strip('[]')}"),
        python=python,
    )
