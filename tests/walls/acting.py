"""Do something as another user, in a child, and bring back what came of it."""

from __future__ import annotations

import os
import pickle
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["as_user"]


def as_user(uid: int, work: Callable[[], Any], *, gid: int | None = None, groups: Sequence[int] = ()) -> Any:
    """`work()`'s (picklable) result, or its exception, with every id and group of `uid` and no capability.

    A fork, not a new interpreter: the one in use may stand where only root can read.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads; the child only reads what is there
        child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.setgroups(list(groups))
            group = uid if gid is None else gid
            os.setresgid(group, group, group)
            os.setresuid(uid, uid, uid)
            try:
                answer = ("value", work())
            except Exception as error:  # carried to the parent, whatever it is
                answer = (
                    "error",
                    (type(error).__name__, getattr(error, "code", ""), str(error), traceback.format_exc()),
                )
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "the child died before it could answer"
    kind, value = pickle.loads(data)
    if kind == "error":
        raise AsUserError(*value)
    return value


class AsUserError(Exception):
    """What went wrong in the child: `kind` of exception, its `code` if it had one, its text."""

    def __init__(self, kind: str, code: str, text: str, trace: str) -> None:
        super().__init__(f"{kind}: {text}\n{trace}")
        self.kind, self.code, self.text = kind, code, text
