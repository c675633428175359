"""Programs at work in a directory of the caller's that the run may write: what an agent or a build does all day."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immured import RunResult
from tests.programs.conftest import CALLER, RunAsCaller

AUTHOR = {f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def written(result: RunResult) -> str:
    """What a command that succeeds wrote to stdout."""
    assert (result.cause, result.exit_code) == ("exited", 0), (result, result.stderr.decode())
    return result.stdout.decode()


def test_git_clones_commits_pushes_and_fetches(in_project: RunAsCaller) -> None:
    script = """
git init -q --bare origin.git
git clone -q origin.git one 2>/dev/null
cd one; echo first > file; git add file; git commit -q -m first; git push -q origin HEAD; cd ..
git clone -q origin.git two
cd one; echo second >> file; git commit -q -a -m second; git push -q origin HEAD; cd ..
cd two; git fetch -q; git merge -q --ff-only FETCH_HEAD
git stash list; git worktree add -q ../three HEAD~1; git status --porcelain
git log --format=%s; cat ../three/file
"""
    assert written(in_project(script, env=AUTHOR)) == "second\nfirst\nfirst\n"


def test_what_was_built_belongs_to_the_caller_and_runs_on_the_host(in_project: RunAsCaller, project: Path) -> None:
    script = r"""
mkdir -p build; cd build
printf '#include "half.h"\nint main(void) { return half(84) - 42; }\n' > main.c
printf 'int half(int of);\n' > half.h
printf '#include "half.h"\nint half(int of) { return of / 2; }\n' > half.c
printf 'program: main.o half.o\n\tcc -o $@ $^\n' > Makefile
make -s -j4; ./program; echo built
"""
    assert written(in_project(script)) == "built\n"
    program = project / "build" / "program"
    assert (program.stat().st_uid, program.stat().st_mode & 0o777) == (CALLER, 0o755)
    assert os.spawnv(os.P_WAIT, program, [str(program)]) == 0


def test_locks_keep_two_processes_apart(in_project: RunAsCaller) -> None:
    script = "exec 9> lock; flock 9; ! flock --nonblock lock true; exec 9>&-; flock --nonblock lock echo free"
    assert written(in_project(script)) == "free\n"


def test_a_database_shared_by_processes(in_project: RunAsCaller) -> None:
    program = """
import multiprocessing, sqlite3

def count(_):
    with sqlite3.connect("base.db", timeout=60) as base:
        base.execute("update t set a = a + 1")

if __name__ == "__main__":
    with sqlite3.connect("base.db") as base:
        print(*base.execute("pragma journal_mode = wal").fetchone())
        base.execute("create table t (a)")
        base.execute("insert into t values (0)")
    with multiprocessing.Pool(4) as pool:
        pool.map(count, range(40))
    print(*sqlite3.connect("base.db").execute("select a from t").fetchone())
"""
    assert written(in_project("cat > count.py; python3 count.py", stdin=program.encode())) == "wal\n40\n"


@pytest.mark.parametrize("call", ["rename", "link", "symlink"])
def test_files_are_renamed_and_linked(in_project: RunAsCaller, call: str) -> None:
    script = (
        f'echo {call} > {call}.old; python3 -c \'import os; os.{call}("{call}.old", "{call}.new")\'; cat {call}.new'
    )
    assert written(in_project(script)) == f"{call}\n"
