"""Manifests that are refused and no text to be kept as a file: too large, too deep, or not UTF-8. By their names in
invalid/, where NAME.expected says with what."""

from __future__ import annotations

from typing import Final

__all__ = ["MADE", "MADE_VALID"]

_HEAD: Final = b'schema = 1\nname = "made"\n'


def _listed(count: int, one: str) -> str:
    return "[" + ", ".join(f'"{one.format(index)}"' for index in range(count)) + "]"


def _file(text: str) -> bytes:
    return _HEAD + text.encode()


_LONG_TEXT: Final = "${t}"
_CHOICE: Final = f'[parameters.t]\ntype = "choice"\nvalues = ["{"a" * 256}"]\n'

MADE: Final[dict[str, bytes]] = {
    "bytes-none": b"",
    "bytes-latin-1": _HEAD + '[filesystem]\nread = ["/srv/größe"]\n'.encode("latin-1"),
    "bytes-half-a-character": _HEAD + b"# \xc3",
    "bytes-of-a-surrogate": _HEAD + b"# \xed\xa0\x80\n",
    "bytes-overlong-slash": _HEAD + b'[filesystem]\nread = ["/srv/..\xc0\xafetc"]\n',
    "bytes-beyond-unicode": _HEAD + b"# \xf4\x90\x80\x80\n",
    "bytes-utf-16": _HEAD.decode().encode("utf-16"),
    "bytes-byte-order-mark": b"\xef\xbb\xbf" + _HEAD,
    "bytes-nul": _HEAD + b'[command]\ncwd = "/srv\0/etc"\n',
    "bytes-nul-in-a-comment": _HEAD + b"# \0\n",
    "bytes-delete": _HEAD + b'[command]\ncwd = "/srv\x7f"\n',
    "bytes-carriage-return": _HEAD + b'# harmless\r[command]\r\ncwd = "/srv"\n',
    "bytes-elf": b"\x7fELF\x02\x01\x01" + bytes(57),
    "huge-comment": _HEAD + b"#" * (256 * 1024),
    "huge-by-one-byte": _HEAD + b"#" * (256 * 1024 + 1 - len(_HEAD)),
    "deep-lists": _file("personas = " + "[" * 20_000 + "]" * 20_000),
    "deep-lists-open": _file("personas = " + "[" * 20_000),
    "deep-tables": _file("filesystem = " + "{a = " * 20_000),
    "deep-table-name": _file("[" + "a." * 5_000 + "a]\n"),
    "deep-dotted-key": _file("filesystem" + ".a" * 5_000 + " = 1\n"),
    "deep-dotted-key-of-the-largest-file": _file("a" + ".a" * 131_000 + " = 1\n"),
    "deep-dotted-key-quoted": _file("filesystem" + '."a b"' * 5_000 + " = 1\n"),
    "deep-parameters": _file("parameters = " + "{ a = " * 40 + "1" + " }" * 40 + "\n"),
    "many-names": _file("".join(f"a{index} = 1\n" for index in range(10_000))),
    "many-tables": _file("".join(f"[filesystem.a{index}]\n" for index in range(10_000))),
    "many-dotted-keys": _file("".join(f"a{index}.b.c.d.e.f.g.h = 1\n" for index in range(5_000))),
    "many-digits": _file("[limits]\npids = " + "9" * 5_000 + "\n"),
    "many-hex-digits": _file("[limits]\npids = 0x" + "f" * 5_000 + "\n"),
    "many-hex-digits-as-the-schema": f'schema = 0x{"f" * 5_000}\nname = "made"\n'.encode(),
    "many-binary-digits": _file("[limits]\nmemory = 0b" + "1" * 100_000 + "\n"),
    "many-zeros-of-cpus": _file("[limits]\ncpus = 1" + "0" * 400 + "\n"),
    "many-digits-of-a-float": _file("[limits]\ncpus = 0." + "3" * 5_000 + "\n"),
    "integer-of-65-bits": _file("[limits]\nmemory = 9223372036854775808\n"),
    "integer-of-65-bits-negative": _file("[limits]\nmemory = -9223372036854775809\n"),
    "many-personas": _file(f"personas = {_listed(65, 'p{}')}\n"),
    "many-tenants": _file(f"tenants = {_listed(65, 't{}')}\n"),
    "many-programs": _file(f"[command]\nallow = {_listed(257, 'make')}\n"),
    "many-patterns": _file(
        f'[command]\nallow = [{{ program = "git", arguments = [{", ".join(["[]"] * 65)}] }}]\n'
    ),
    "many-words": _file(f'[command]\nallow = [{{ program = "git", arguments = [{_listed(257, "x")}] }}]\n'),
    "long-word": _file(f'[command]\nallow = [{{ program = "git", arguments = [["{"x" * 4_096}"]] }}]\n'),
    "long-program": _file(f'[command]\nallow = ["/{"x" * 4_096}"]\n'),
    "many-variables": _file("[command.env]\n" + "".join(f'A{index} = ""\n' for index in range(510))),
    "long-variable": _file(f'[command.env]\nA = "{"x" * 131_072}"\n'),
    "long-environment": _file(f'[command.env]\nA = "{"x" * 65_536}"\nB = "{"x" * 65_536}"\n'),
    "many-passed": _file(f"[command]\npass_env = {_listed(257, 'A{}')}\n"),
    "many-paths-of-one-list": _file(f"[filesystem]\nhide = {_listed(257, '/h{}')}\n"),
    "many-paths": _file(f"[filesystem]\nread = {_listed(200, '/r{}')}\nhide = {_listed(60, '/h{}')}\n"),
    "many-paths-by-groups": _file(
        f'[filesystem]\nwrite = {_listed(64, "/w{}")}\nprotect = ["@vcs", "@shell", "@tools", "@manifest"]\n'
    ),
    "long-path": _file(f'[filesystem]\nread = ["{"/a" * 2_048}"]\n'),
    "long-path-of-wide-characters": _file(f'[filesystem]\nread = ["{("/" + "п" * 127) * 17}"]\n'),
    "many-calls": _file(f"[syscalls]\ndeny = {_listed(513, 'read')}\n"),
    "many-destinations": _file(f"[network]\nallow = {_listed(257, 'h{}.example:443')}\n"),
    "many-secrets": _file("".join(f"[secrets.A{index}]\n" for index in range(65))),
    "many-parameters": _file("".join(f"[parameters.a{index}]\n" for index in range(33))),
    "many-directories-of-a-parameter": _file(
        f'[parameters.p]\ntype = "path"\nwithin = {_listed(17, "/d{}")}\n'
    ),
    "many-values-of-a-parameter": _file(f'[parameters.p]\ntype = "choice"\nvalues = {_listed(65, "v{}")}\n'),
    "long-value-of-a-parameter": _file(f'[parameters.p]\ntype = "choice"\nvalues = ["{"v" * 257}"]\n'),
    "long-pattern-of-a-parameter": _file(
        f'[parameters.p]\ntype = "text"\nlongest = 1\npattern = "{"v" * 129}"\n'
    ),
    "long-default-of-a-parameter": _file(
        f'[parameters.p]\ntype = "path"\nwithin = ["/a"]\ndefault = "{"/a" * 513}"\n'
    ),
    "parameters-that-multiply": _file(f'[command.env]\nA = "{_LONG_TEXT * 2_000}"\n{_CHOICE}'),
    "parameters-that-multiply-to-a-megabyte": _file(
        "[command.env]\n" + "".join(f'A{index} = "{_LONG_TEXT * 1_000}"\n' for index in range(5)) + _CHOICE
    ),
    "parameters-that-make-a-long-path": _file(f'[filesystem]\nhide = ["/{_LONG_TEXT}/{_LONG_TEXT}"]\n{_CHOICE}'),
}  # fmt: skip
"""Refused."""

MADE_VALID: Final[dict[str, bytes]] = {
    "largest-file": _HEAD + b"#" * (256 * 1024 - 1 - len(_HEAD)) + b"\n",
    "largest-integer-that-toml-has": _file("[parameters.n]\ntype = 'integer'\nleast = 0\nmost = 0x1fffffffffffff\n"),
    "longest-path": _file(f'[filesystem]\nread = ["{("/" + "a" * 255) * 15 + "/" + "a" * 254}"]\n'),
    "most-paths": _file(f"[filesystem]\ntmpfs = []\nread = {_listed(200, '/r{}')}\nhide = {_listed(56, '/h{}')}\n"),
    "most-personas": _file(f"personas = {_listed(64, 'p{}')}\n"),
    "most-programs": _file(f"[command]\nallow = {_listed(256, 'make')}\n"),
    "dots-in-a-text": _file('[command.env]\nA = "' + "a." * 5_000 + '"\n'),
    "dots-in-a-comment": _file("# " + "a." * 5_000 + "\n"),
}
"""Taken."""
