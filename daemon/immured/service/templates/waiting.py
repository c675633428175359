# What a template's interpreter runs: it imports what it was told to, says so, and waits for one order on its standard
# input: a line with a length, so many bytes of JSON, then the program's own input. Nothing untrusted ran before.
import importlib
import json
import os
import sys
import types


def exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            raise SystemExit(0)
        data += part
    return data


def order() -> str:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    os.write(1, b"ready\n")
    length = b""
    while not length.endswith(b"\n"):
        length += exactly(1)
    given = json.loads(exactly(int(length)))
    os.environ.update(given.get("env", {}))
    if "cwd" in given:
        os.chdir(given["cwd"])
    sys.argv = ["-c", *given.get("argv", [])]
    return str(given["code"])


def program(text: str) -> tuple[types.CodeType, dict[str, object]]:
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    return compile(text, "<string>", "exec"), main.__dict__


exec(*program(order()))  # noqa: S102 - that is what it is for
