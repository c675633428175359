"""An index over the ledger's lines, for questions: which entries are of this tenant, actor, sandbox, type, time.

    with Index.open(DIR / "ledger") as index:
        index.catch_up()
        for entry in index.select(Selection(tenant="acme")): ...

It is derived: whoever may read the ledger can make it anew, `verify` never looks at it, and every hit is read from the
ledger itself. Where it does not fit the lines beside it, it is thrown away and made again.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from immured._ledger_read import read_line
from immured.ledger.belonging import Belonging
from immured.ledger.chain import Chain
from immured.ledger.entry import MAX_LINE, Entry, LineError, parse_line
from immured.ledger.reader import Problem, Standing, begin
from immured.ledger.scan import swift
from immured.ledger.segments import Files
from immured.ledger.selection import Selection, values_of
from immured.ledger.timestamps import parse_timestamp
from immured.ledger.tree import Frontier

if TYPE_CHECKING:
    import sqlite3
else:
    from immured.ledger import sqlite as sqlite3

__all__ = ["INDEX", "Index", "StaleIndex", "is_broken"]

INDEX: Final = "index.sqlite"
_VERSION: Final = 2
_PIECE: Final = 4 << 20
_REMEMBERED: Final = 16_384
_BUSY_S: Final = 30.0
_CACHE_KIB: Final = 65_536
_PAGE: Final = 1_024
_NEAR: Final = 4_096
_TOGETHER: Final = 64

_scan: Final = json.JSONDecoder().raw_decode

_SCHEMA: Final = """
CREATE TABLE place (version INTEGER, origin TEXT, size INTEGER, end INTEGER, leaf BLOB, ts TEXT, whole INTEGER,
                    roots BLOB);
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL);
CREATE TABLE actors (id INTEGER PRIMARY KEY, said TEXT UNIQUE NOT NULL);
CREATE TABLE actor_values (value TEXT, actor INTEGER, PRIMARY KEY (value, actor)) WITHOUT ROWID;
CREATE TABLE entries (seq INTEGER PRIMARY KEY, offset INTEGER, at INTEGER, type INTEGER, tenant INTEGER, actor INTEGER,
                      sandbox INTEGER);
CREATE TABLE open (seq INTEGER PRIMARY KEY, tenant INTEGER);
CREATE TABLE begun (sandbox INTEGER PRIMARY KEY, tenant INTEGER);
"""
_SORTED: Final = """
CREATE INDEX IF NOT EXISTS by_type ON entries (type);
CREATE INDEX IF NOT EXISTS by_tenant ON entries (tenant, seq, type, offset);
CREATE INDEX IF NOT EXISTS by_actor ON entries (actor);
CREATE INDEX IF NOT EXISTS by_sandbox ON entries (sandbox) WHERE sandbox IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_time ON entries (at);
"""
"""Made once all that there was is in: sorting it at once is sooner done than keeping order."""


class _Place(NamedTuple):
    """How far it has come. `leaf`, `ts`: of the last line, which ends at byte `end`; `roots`: the tree's frontier."""

    version: int
    origin: str
    size: int
    end: int
    leaf: bytes
    ts: str
    whole: int
    roots: bytes


class StaleIndex(Exception):
    """It is not of this ledger, or not of what it is now."""


def is_broken(error: sqlite3.Error) -> bool:
    """Whether the file is amiss, and would be no better later: not what keeps one from it."""
    outside = {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_AUTH),
    }
    return getattr(error, "sqlite_errorcode", 0) & 0xFF not in outside


@functools.lru_cache(_REMEMBERED)
def _short(name: str) -> int:
    """A sandbox's name as a number: two may share one, and the line decides."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


class Index:
    """One index, open. Not for several threads at once."""

    @classmethod
    def open(cls, directory: Path, *, at: Path | None = None) -> Index:
        """Of the ledger in `directory`; the file beside its lines, or elsewhere. Made where there is none that fits.

        Raises OSError, sqlite3.Error: it can neither be read nor made there.
        """
        files = Files.at(directory)
        path = at or directory / INDEX
        try:
            try:
                return cls(files, _connect(path))
            except (StaleIndex, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.Error) and not is_broken(error):
                    raise
                for name in (path, path.with_name(path.name + "-journal")):
                    name.unlink(missing_ok=True)
                return cls(files, _connect(path))
        except BaseException:
            files.close()
            raise

    def __init__(self, files: Files, database: sqlite3.Connection) -> None:
        self._files, self._db = files, database
        try:
            self._make()
            self._check()
        except BaseException:
            database.close()
            raise
        self._texts = _Numbers(database, "texts", "text")
        self._actors = _Numbers(database, "actors", "said")
        self._same: dict[str, int] = {}

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of both files."""
        self._db.close()
        self._files.close()

    @property
    def size(self) -> int:
        """It knows the entries before this index."""
        return int(self._db.execute("SELECT size FROM place").fetchone()[0])

    # --- keeping up

    def _make(self) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            whole = self._files.first == 0
            row = (_VERSION, "", self._files.first, self._files.start, b"", "", whole, b"")
            self._db.execute("INSERT INTO place VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _place(self) -> _Place:
        found = self._db.execute("SELECT * FROM place").fetchall()
        if len(found) != 1 or found[0][0] != _VERSION:
            raise StaleIndex
        return _Place(*found[0])

    def _check(self) -> None:
        """That the last line it knows is where it says, and is that line. Raises StaleIndex."""
        place = self._place()
        size, end = place.size, place.end
        if not place.leaf:
            return
        if end > self._files.size() or end <= self._files.start:
            raise StaleIndex
        tail = self._files.read(max(self._files.start, end - MAX_LINE - 2), min(MAX_LINE + 2, end - self._files.start))
        line = tail[:-1].rpartition(b"\n")[2]
        try:
            entry = parse_line(line)
        except LineError:
            raise StaleIndex from None
        if not tail.endswith(b"\n") or entry.leaf != place.leaf or entry.seq != size - 1:
            raise StaleIndex

    def catch_up(self, progress: Callable[[int], None] = lambda _: None) -> Problem | None:
        """Take what the ledger has by now; `progress` is told how many entries it knows. What is wrong with the next
        line where that is no entry. Raises OSError, sqlite3.Error."""
        while self._files.refresh():
            pass
        while True:
            try:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")  # somebody else may have gone on meanwhile
                    taken, problem = self._take()
            except BaseException:
                for numbers in (self._texts, self._actors):
                    numbers.forget()
                self._same.clear()
                raise
            if not taken or problem is not None:
                self._sort()
                return problem
            progress(self.size)

    def _sort(self) -> None:
        """Order the rows by what is asked for, if nobody has yet."""
        if self._db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'by_time'").fetchone()[0]:
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in _SORTED.split(";"):
                self._db.execute(statement)

    def _take(self) -> tuple[int, Problem | None]:
        place = self._place()
        limit = min(self._files.size(), place.end + _PIECE)
        rows: list[tuple[int, int, int, int, int, int, int | None]] = []
        belonging = _Kept(self, whole=bool(place.whole))
        offset = place.end
        last: Entry | None = None

        def see(entry: Entry) -> None:
            nonlocal offset, last
            tenant, sandbox = self._texts.number(belonging.of(entry)), entry.data.get("sandbox")
            rows.append((
                entry.seq, offset, _at(entry.ts), self._texts.number(entry.type), tenant,
                self._actor(entry.actor), _short(sandbox) if isinstance(sandbox, str) else None,
            ))  # fmt: skip
            offset += len(entry.line) + 1
            last = entry

        found = swift(self._files, limit, {}, see, self._standing(place))
        problem = found.problem
        if problem is not None and problem.code == "torn_line":
            problem = None  # it is cut where this looked no further, or is being written
        if last is None:
            return 0, problem
        self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        belonging.keep()
        chain = found.chain
        self._db.execute(
            "UPDATE place SET origin = ?, size = ?, end = ?, leaf = ?, ts = ?, roots = ?",
            (chain.origin, last.seq + 1, offset, last.leaf, last.ts, b"".join(chain.tree.roots())),
        )
        return len(rows), problem

    def _standing(self, place: _Place) -> Standing:
        """Where the scan goes on. Raises StaleIndex: what is kept does not begin as it should."""
        if not place.leaf:
            begun = begin(self._files, self._files.start, {})
            if isinstance(begun, Problem):
                raise StaleIndex(str(begun))
            return begun
        chain, roots = Chain(), place.roots
        chain.tree = Frontier.resumed(place.size, [roots[at : at + 32] for at in range(0, len(roots), 32)])
        chain.last_leaf, chain.last_ts, chain.origin = place.leaf.hex(), place.ts, place.origin
        return Standing(chain, place.end)

    def _actor(self, actor: Mapping[str, Any]) -> int:
        same = repr([item for item in actor.items() if item[0] != "pid"])
        number = self._same.get(same)
        if number is None:
            if len(self._same) >= _REMEMBERED:
                self._same.clear()
            self._same[same] = number = self._actor_number(actor)
        return number

    def _actor_number(self, actor: Mapping[str, Any]) -> int:
        said = "\0".join(sorted(set(values_of(actor))))
        number = self._actors.known(said)
        if number is None:
            number = self._actors.number(said)
            pairs = [(value, number) for value in said.split("\0")]
            self._db.executemany("INSERT OR IGNORE INTO actor_values VALUES (?, ?)", pairs)
        return number

    # --- asking

    def select(self, chosen: Selection) -> Iterator[Entry]:
        """The entries among those it knows that match, in order; each is read from the ledger, and looked at again.

        Raises StaleIndex where a line is not the one that was indexed, OSError, sqlite3.Error.
        """
        asked = self._where(chosen)
        if asked is None:
            return
        where, values = asked
        # A page at a time, with no lock in between: whoever reads the answers slowly keeps nobody from adding to it.
        page = f"SELECT seq, offset FROM entries {where} ORDER BY seq LIMIT {_PAGE}"  # noqa: S608  our own words
        while rows := self._db.execute(page, values).fetchall():
            for entry in self._entries(rows):
                if chosen.matches(entry):
                    yield entry
            if len(rows) < _PAGE:
                return
            values[0] = int(rows[-1][0]) + 1

    def last(self, chosen: Selection, count: int) -> list[Entry]:
        """The last so many of those, oldest first."""
        asked = self._where(chosen)
        if asked is None:
            return []
        where, values = asked
        found: list[Entry] = []
        page = f"SELECT seq, offset FROM entries {where} AND seq < ? ORDER BY seq DESC LIMIT ?"  # noqa: S608
        size, before = min(_PAGE, 2 * count), 1 << 62
        while len(found) < count and (rows := self._db.execute(page, [*values, before, size]).fetchall()):
            before = int(rows[-1][0])
            found += [entry for entry in reversed([*self._entries(rows[::-1])]) if chosen.matches(entry)]
            size = _PAGE
        return found[:count][::-1]

    def _entries(self, rows: Sequence[tuple[int, int]]) -> Iterator[Entry]:
        """The entries (index, offset) of these rows, in order; lines that stand near each other are read at once."""
        held, begins = b"", 0
        for nth, (seq, offset) in enumerate(rows):
            line = _line(held, offset - begins) if begins <= offset else None
            if line is None:
                until = offset
                for _, other in rows[nth : nth + _TOGETHER]:
                    if other - until > _NEAR:
                        break
                    until = other
                held, begins = self._files.read(offset, until - offset + _NEAR), offset
                line = _line(held, 0)
            if line is None:
                line = self._files.read(offset, MAX_LINE + 1).partition(b"\n")[0]
            yield _entry(seq, line)

    def _where(self, chosen: Selection) -> tuple[str, list[Any]] | None:
        """The condition in SQL; None: nothing can match."""
        terms, values = ["seq >= ?"], [max(chosen.first, self._files.first)]
        more: list[object] = []
        if chosen.end is not None:
            terms.append("seq < ?")
            more.append(chosen.end)
        if chosen.types:
            numbers = [number for number, text in self._types() if _fits(text, chosen.types)]
            terms.append(f"type IN ({','.join('?' * len(numbers))})")
            more.extend(numbers)
        if chosen.tenant is not None:
            number = self._texts.known(chosen.tenant)
            if number is None:
                return None
            terms.append("tenant = ?")
            more.append(number)
        if chosen.actor:
            terms.append("actor IN (SELECT actor FROM actor_values WHERE value = ?)")
            more.append(chosen.actor)
        if chosen.sandbox:
            terms.append("sandbox = ?")
            more.append(_short(chosen.sandbox))
        for name, text, sign in (("since", chosen.since, ">="), ("until", chosen.until, "<=")):
            if text:
                terms.append(f"at {sign} ?")
                more.append(_nanoseconds(text, latest=name == "until"))
        return f"WHERE {' AND '.join(terms)}", [*values, *more]

    def _types(self) -> list[tuple[int, str]]:
        """Every type that there is, each found by a step in its index."""
        return self._db.execute(
            "WITH RECURSIVE each (type) AS (SELECT min(type) FROM entries UNION ALL"
            " SELECT (SELECT min(type) FROM entries WHERE type > each.type) FROM each WHERE each.type IS NOT NULL)"
            " SELECT type, text FROM each JOIN texts ON texts.id = type"
        ).fetchall()

    def tenant_of(self, seq: int) -> str | None:
        """Whose the entry is: a tenant's name, or empty for the host's. None: it is not known here."""
        found = self._db.execute("SELECT text FROM entries JOIN texts ON texts.id = tenant WHERE seq = ?", (seq,))
        row = found.fetchone()
        return str(row[0]) if row is not None else None


class _Numbers:
    """Texts by number, the ones used last from memory."""

    def __init__(self, database: sqlite3.Connection, table: str, column: str) -> None:
        self._db = database
        self._find = f"SELECT id FROM {table} WHERE {column} = ?"  # noqa: S608  our own words
        self._add = f"INSERT INTO {table} ({column}) VALUES (?)"  # noqa: S608
        self._recent: OrderedDict[str, int] = OrderedDict()

    def known(self, text: str) -> int | None:
        number = self._recent.get(text)
        if number is None:
            row = self._db.execute(self._find, (text,)).fetchone()
            if row is None:
                return None
            self._remember(text, number := int(row[0]))
        return number

    def number(self, text: str) -> int:
        number = self.known(text)
        if number is None:
            number = self._db.execute(self._add, (text,)).lastrowid or 0
            self._remember(text, number)
        return number

    def _remember(self, text: str, number: int) -> None:
        self._recent[text] = number
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)

    def forget(self) -> None:
        """What was added may have been rolled back."""
        self._recent.clear()


class _Kept(Belonging):
    """The same rule, its memory in the database: it grows with the ledger."""

    def __init__(self, index: Index, *, whole: bool) -> None:
        super().__init__(whole=whole)
        database, texts = index._db, index._texts  # noqa: SLF001  one concern in two classes
        self._db, self._numbers = database, texts
        self._before = {
            int(seq): str(text)
            for seq, text in database.execute("SELECT seq, text FROM open JOIN texts ON texts.id = tenant")
        }
        self._intents = dict(self._before)
        self._sandboxes = self._begun = _Sandboxes(database)

    def keep(self) -> None:
        """Write what changed."""
        gone = [(seq,) for seq in self._before if seq not in self._intents]
        self._db.executemany("DELETE FROM open WHERE seq = ?", gone)
        new = [(seq, self._numbers.number(one)) for seq, one in self._intents.items() if seq not in self._before]
        self._db.executemany("INSERT INTO open VALUES (?, ?)", new)
        begun = [(_short(name), self._numbers.number(one)) for name, one in self._begun.items()]
        self._db.executemany("INSERT OR IGNORE INTO begun VALUES (?, ?)", begun)


class _Sandboxes(dict[str, str]):
    """Whose each sandbox is: of this batch in memory, of those before in the database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        super().__init__()
        self._db = database
        self._unheard: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        if name not in self:
            if name in self._unheard:
                return default
            row = self._db.execute(
                "SELECT text FROM begun JOIN texts ON texts.id = tenant WHERE sandbox = ?", (_short(name),)
            ).fetchone()
            if row is None:
                self._unheard.add(name)
                return default
            self[name] = str(row[0])
        return self[name]

    def setdefault(self, name: str, owner: str = "") -> str:
        known = self.get(name)
        if known is None:
            self[name] = known = owner
        return known


def _at(ts: str) -> int:
    """parse_timestamp, one calendar look a minute."""
    return _minute(ts[:17]) + int(ts[17:19] + ts[20:29])


@functools.lru_cache(64)
def _minute(begins: str) -> int:
    return parse_timestamp(f"{begins}00.000000000Z")


def _line(held: bytes, at: int) -> bytes | None:
    """The line that begins there, where all of it is held."""
    end = held.find(b"\n", at)
    return None if end < 0 else held[at:end]


def _entry(seq: int, line: bytes) -> Entry:
    """What is strict about a line is decided in C, as parse_line does. Raises StaleIndex."""
    found = read_line(line)
    if found is None or found[0] != seq:
        raise StaleIndex(f"entry {seq} is not where it was")
    _, ts, kind, actor, data, prev, leaf = found
    return Entry(seq, ts, kind, _scan(actor.decode(), 0)[0], _scan(data.decode(), 0)[0], prev.hex(), leaf, line)


def _fits(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, one) for one in patterns)


def _nanoseconds(text: str, *, latest: bool) -> int:
    """The moment that a time stamp, or the beginning of one, stands for: never later, with `latest` never earlier."""
    pattern = "9999-12-31T23:59:59.999999999Z" if latest else "0001-01-01T00:00:00.000000000Z"
    with contextlib.suppress(ValueError):
        return parse_timestamp((text + pattern[len(text) :])[: len(pattern)])
    return (1 << 63) - 1 if latest else -(1 << 63)


def _connect(path: Path) -> sqlite3.Connection:
    _prepare(path)
    database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = TRUNCATE")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        database.close()
        raise
    return database


def _prepare(path: Path) -> None:
    """The file, for nobody but whoever the directory is of: root makes it for a daemon's user. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        above, made = path.parent.stat(), os.fstat(fd)
        if not os.geteuid() and (made.st_uid, made.st_gid) != (above.st_uid, above.st_gid):
            os.fchown(fd, above.st_uid, above.st_gid)
    finally:
        os.close(fd)
