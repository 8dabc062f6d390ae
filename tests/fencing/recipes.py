"""The recipes of docs/fencing.md, as they stand there, behind one face for the tests.

What is fenced as ``python`` under a heading of the second level is one recipe; the first such headings, up to the first
recipe, are what all of them build on. Only where the databases are is put in.
"""

from __future__ import annotations

import os
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import psycopg
from celery import _state as celery_state
from local_postgres import DATABASE
from pages import ROOT, Block, blocks_of, run_block

PAGE = ROOT / "docs" / "fencing.md"

#: Where the file of the SQLite database is. Where PostgreSQL is, libpq's own variables say.
SQLITE_FILE = "FENCING_SQLITE_FILE"

_FIRST_RECIPE = "SQLite"
_MAKES_TABLES = re.compile("CREATE TABLE|create_all|create_model")
_PATIENCE = 30

Page = dict[str, Any]


@dataclass(frozen=True)
class SentUnder:
    """All that a recipe needs to know of a lease."""

    key: str
    token: int


def recipe_blocks(title: str) -> list[Block]:
    """The blocks that a recipe builds on, and its own."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    titles = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert title in titles, f"{PAGE.name} has no heading {title!r}"
    wanted = {*takewhile(lambda each: each != _FIRST_RECIPE, titles), title}
    return [block for block in blocks_of(PAGE, "python") if _title_above(lines, block.line) in wanted]


def _title_above(lines: list[str], line: int) -> str:
    return next(above.removeprefix("## ") for above in reversed(lines[:line]) if above.startswith("## "))


@cache
def load(title: str, *, tables: bool) -> Page:
    """Run a recipe's blocks.

    Args:
        title: its heading.
        tables: whether to make its tables, too; once for a database.

    Returns:
        The names that it defines.
    """
    current_app = celery_state._tls.current_app
    page: Page = {"__name__": "fleet"}
    for block in recipe_blocks(title):
        if tables or not _MAKES_TABLES.search(block.text):
            run_block(PAGE, replace(block, text=_with_file(block.text)), page)
    if "connection" in page:
        page["connection"].close()
    celery_state._tls.current_app = current_app  # an application of a page is nobody else's
    return page


def _with_file(text: str) -> str:
    path = os.environ[SQLITE_FILE]
    return text.replace('":memory:"', repr(path)).replace('"sqlite://"', repr(f"sqlite:///{path}"))


class Recipe(ABC):
    """A recipe on one database; may be used by many threads at once."""

    title: str

    def __init__(self, *, tables: bool) -> None:
        self.page = load(self.title, tables=tables)

    @property
    def stale_write(self) -> type[Exception]:
        found: type[Exception] = self.page["StaleWrite"]
        return found

    @abstractmethod
    def write_size(self, cluster: str, size: int, token: int) -> None: ...

    @abstractmethod
    def write_replicas(self, cluster: str, hosts: Iterable[Any], lease: Any) -> None: ...

    @abstractmethod
    def size(self, cluster: str) -> tuple[int, int]:
        """What was written, and the token with it."""

    @abstractmethod
    def hosts(self, cluster: str) -> list[str]: ...


class _Sql(Recipe):
    @abstractmethod
    def connect(self) -> AbstractContextManager[Any]: ...

    def write_size(self, cluster: str, size: int, token: int) -> None:
        with self.connect() as connection:
            self.page["write_size"](connection, cluster, size, token)

    def write_replicas(self, cluster: str, hosts: Iterable[Any], lease: Any) -> None:
        with self.connect() as connection:
            self.page["write_replicas"](connection, cluster, hosts, lease)

    def size(self, cluster: str) -> tuple[int, int]:
        with self.connect() as connection:
            rows = connection.execute("SELECT cluster_id, size, token FROM cluster_size").fetchall()
        return next((size, token) for cluster_id, size, token in rows if cluster_id == cluster)

    def hosts(self, cluster: str) -> list[str]:
        with self.connect() as connection:
            rows = connection.execute("SELECT cluster_id, host FROM replica").fetchall()
        return sorted(host for cluster_id, host in rows if cluster_id == cluster)


class Sqlite(_Sql):
    title = "SQLite"

    def connect(self) -> AbstractContextManager[Any]:
        return closing(sqlite3.connect(os.environ[SQLITE_FILE], timeout=_PATIENCE))


class Postgres(_Sql):
    title = "PostgreSQL"

    def connect(self) -> AbstractContextManager[Any]:
        return closing(psycopg.connect(f"dbname={DATABASE}", autocommit=True))


class _SqlAlchemy(Recipe):
    title = "SQLAlchemy"
    dialect: str

    @contextmanager
    def session(self) -> Iterator[Any]:
        [engine] = [engine for engine in self.page["engines"] if engine.dialect.name == self.dialect]
        with self.page["Session"](engine) as session, session.begin():
            yield session

    def write_size(self, cluster: str, size: int, token: int) -> None:
        with self.session() as session:
            self.page["write_size"](session, cluster, size, token)

    def write_replicas(self, cluster: str, hosts: Iterable[Any], lease: Any) -> None:
        with self.session() as session:
            self.page["write_replicas"](session, cluster, hosts, lease)

    def size(self, cluster: str) -> tuple[int, int]:
        with self.session() as session:
            found = session.get(self.page["Cluster"], cluster)
            return found.size, found.token

    def hosts(self, cluster: str) -> list[str]:
        with self.session() as session:
            return sorted(replica.host for replica in session.query(self.page["Replica"]).filter_by(cluster_id=cluster))


class SqlAlchemyOnSqlite(_SqlAlchemy):
    dialect = "sqlite"


class SqlAlchemyOnPostgres(_SqlAlchemy):
    dialect = "postgresql"


class _Django(Recipe):
    title = "Django"
    alias: str

    @contextmanager
    def _connection_of_this_thread(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.page["connections"][self.alias].close()

    def write_size(self, cluster: str, size: int, token: int) -> None:
        with self._connection_of_this_thread():
            self.page["write_size"](cluster, size, token, using=self.alias)

    def write_replicas(self, cluster: str, hosts: Iterable[Any], lease: Any) -> None:
        with self._connection_of_this_thread():
            self.page["write_replicas"](cluster, hosts, lease, using=self.alias)

    def size(self, cluster: str) -> tuple[int, int]:
        with self._connection_of_this_thread():
            found = self.page["Cluster"].objects.using(self.alias).get(pk=cluster)
            return found.size, found.token

    def hosts(self, cluster: str) -> list[str]:
        with self._connection_of_this_thread():
            replicas = self.page["Replica"].objects.using(self.alias).filter(cluster_id=cluster)
            return sorted(replicas.values_list("host", flat=True))


class DjangoOnSqlite(_Django):
    alias = "default"


class DjangoOnPostgres(_Django):
    alias = "postgresql"


RECIPES: dict[str, type[Recipe]] = {
    recipe.__name__: recipe
    for recipe in (Sqlite, Postgres, SqlAlchemyOnSqlite, SqlAlchemyOnPostgres, DjangoOnSqlite, DjangoOnPostgres)
}


def make_database_file(folder: Path) -> Path:
    """A SQLite database that readers and writers may use at once, and that does not wait for the disk."""
    path = folder / "fleet.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return path
