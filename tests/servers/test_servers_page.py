"""The page on servers: its settings reach the servers that they are for, and its table is the one that was printed."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
from celery import Celery
from pages import ROOT, blocks_of, run_block

from celery_coord.app import coordination
from tests.servers import rights
from tests.servers.binaries import WANTED, found
from tests.servers.cells import Cell
from tests.servers.kinds import KINDS, SetUp

OUTPUT = ROOT / "docs" / "servers_output.txt"


#: What each block of settings is for, in the order of the page.
SETTINGS = (
    ("password", "one server"),
    ("user", "a user with the least rights"),
    ("unix", "a Unix socket"),
    ("tls", "TLS, in the URL"),
    ("tls", "TLS, beside the URL"),
    ("sentinel-user", "Sentinel"),
    ("sentinel-user", "Sentinel, as Celery has it"),
    ("sentinel", "Sentinel, where broker and results are"),
    ("cluster-user", "a cluster"),
    ("resp3", "RESP3"),
)


def test_each_block_of_settings_is_tested() -> None:
    assert len(blocks_of(rights.PAGE, "python")) == len(SETTINGS)


@pytest.mark.server
@pytest.mark.parametrize(
    ("number", "kind"), [pytest.param(number, kind, id=name) for number, (kind, name) in enumerate(SETTINGS)]
)
def test_the_settings_of_the_page_reach_the_server(number: int, kind: str) -> None:
    cell = Cell(kind, "redis-7.0")
    if why_not := cell.why_not():
        pytest.skip(why_not)
    names = {"app": Celery("fleet", set_as_current=False), "__name__": "fleet"}
    names["app"].conf.coord_store_timeout = 10
    with cell.started() as set_up:
        block = blocks_of(rights.PAGE, "python")[number]

        run_block(rights.PAGE, replace(block, text=at(set_up, block.text)), names)

        store = coordination(names["app"]).store
        assert store.check() == []
        store.close()


def at(set_up: SetUp, text: str) -> str:
    """The text, with the hosts and the files of a set-up in the place of those that are printed."""
    url = urlsplit(set_up.url)
    text = text.replace("/run/redis/redis.sock", url.path)
    for name, value in parse_qsl(url.query):
        text = re.sub(rf"({name}=|\"{name}\": \")/[\w./-]+", rf"\g<1>{value}", text)
    ours = iter(url.netloc.rpartition("@")[2].split(","))
    if "secret" not in set_up.url:
        text = text.replace(":secret@", "")
    return re.sub(r"(?<=[/@,])[a-z][\w.-]*:\d+(?=[/,;\"])", lambda _: next(ours), text)


def test_the_page_prints_the_line_for_the_command_and_for_the_file_alike() -> None:
    assert rights.rules_in_a_file().split()[2:] == rights.rules()


def test_the_table_is_the_one_that_was_printed_last() -> None:
    """It is written where it is run, by `make servers`."""
    printed = OUTPUT.read_text(encoding="utf-8").strip()

    assert printed in rights.PAGE.read_text(encoding="utf-8"), f"paste what is in {OUTPUT.name}"


def test_the_table_has_every_kind_and_every_server_and_no_failure() -> None:
    printed = OUTPUT.read_text(encoding="utf-8")

    [head, *rows] = re.findall(r"^(?: {16}|[\w-]+  ).*$", printed, re.MULTILINE)
    assert [row.split()[0] for row in rows] == list(KINDS)
    assert re.findall(r"(\w+) (\d+\.\d+)\.\d+", head) == [tuple(name.title().split("-")) for name in WANTED]
    assert "FAILED" not in printed


def test_the_page_names_the_servers_that_are_tested() -> None:
    page = rights.PAGE.read_text(encoding="utf-8")

    assert [binary.title for binary in found().values() if binary.title.rpartition(".")[0] not in page] == []
