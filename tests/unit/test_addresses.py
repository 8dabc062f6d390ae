"""`coord_url` alone says where the servers are; what else there is to connecting is taken from where the app has it."""

from __future__ import annotations

import re
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery

from celery_coord import ConfigurationError
from celery_coord.settings import Settings
from celery_coord.stores.redis.address import Address
from celery_coord.stores.redis.urls import SCHEMES

SENTINELS = "sentinel://one:1,two:2/0"
CLUSTER = "redis+cluster://one:1,two:2"


def address(url: str, **options: Any) -> Address:
    return Address.of(url, options, timeout=2.0)


def settings(**conf: Any) -> Settings:
    app = Celery(set_as_current=False)
    app.conf.update(conf)
    return Settings.of(app)


def settings_and_address(**conf: Any) -> Settings:
    """The settings, whose store can be opened."""
    found = settings(**conf)
    Address.of(found.url, found.transport_options, timeout=1)
    return found


@pytest.mark.parametrize(
    ("url", "hosts", "said"),
    [
        ("redis://host", [("host", 6379)], {}),
        (
            "redis://me:p%40ss@host:7/3?client_name=us",
            [("host", 7)],
            {"db": 3, "password": "p@ss", "client_name": "us"},
        ),
        ("redis://[::1]:7/3", [("::1", 7)], {"db": 3}),
        ("rediss://host/1?ssl_cert_reqs=CERT_NONE", [("host", 6379)], {"db": 1, "ssl_cert_reqs": "none"}),
        ("unix:///tmp/s.sock?db=2", [], {"path": "/tmp/s.sock", "db": 2}),
        ("unix://me:pw@/tmp/s.sock", [], {"path": "/tmp/s.sock", "username": "me", "password": "pw"}),
        ("redis+socket:///tmp/s.sock?virtual_host=2", [], {"path": "/tmp/s.sock", "db": 2}),
        (f"{SENTINELS}?master_name=m", [("one", 1), ("two", 2)], {"db": 0}),
        (
            "sentinel://:pw@one:1;sentinel://two:2/4?master_name=m",
            [("one", 1), ("two", 2)],
            {"db": 4, "password": "pw"},
        ),
        ("sentinel://one;sentinel://two/4?master_name=m", [("one", 26379), ("two", 26379)], {"db": 4}),
        (CLUSTER, [("one", 1), ("two", 2)], {}),
        ("rediss+cluster://me:pw@one,two:2/", [("one", 6379), ("two", 2)], {"username": "me", "password": "pw"}),
    ],
)
def test_a_url_says_where_the_servers_are_and_how_to_connect(
    url: str, hosts: list[tuple[str, int]], said: dict[str, Any]
) -> None:
    found = address(url)

    assert list(found.hosts) == hosts
    assert said.items() <= found.options.items()
    assert found.is_tls is url.startswith(("rediss", "sentinels"))
    assert found.is_cluster is ("cluster" in url)


@pytest.mark.parametrize("url", ["rediss://h", "sentinels://h?master_name=m", "rediss+cluster://h"])
def test_tls_is_asked_for_by_the_scheme(url: str) -> None:
    client = address(f"{url}{'&' if '?' in url else '?'}ssl_ca_certs=/ca.pem").client(("h", 1))

    assert issubclass(client.connection_pool.connection_class, redis.SSLConnection)
    assert client.connection_pool.connection_kwargs["ssl_ca_certs"] == "/ca.pem"


def test_a_sentinel_has_its_own_password_and_the_servers_theirs() -> None:
    url = "sentinel://:theirs@one:1/0?master_name=m&sentinel_password=its&sentinel_username=watcher"

    found = address(url, sentinel_kwargs={"password": "older", "client_name": "us"})

    assert found.options["password"] == "theirs"
    said = {"ssl": False, "username": "watcher", "password": "its", "client_name": "us"}
    assert dict(found.sentinel_options) == said
    assert "theirs" not in repr(found)
    assert "its" not in repr(found).replace("sits", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://:7/1",
        "redis://host:port/0",
        "redis://host:0",
        "redis://host/name",
        "redis:// host/0",
        "redis://a..b/0",
        "redis://:hun\u2100ter@host/0",
        "redis://:hun[ter@host/0",
        "redis://host/0#pw",
        "redis://user:123?abc@host/0",
        "redis://user:123?ab=cd@host/0",
        "redis://one,two/0",
        "redis://one;redis://two",
        "unix://",
        "unix://run/redis.sock",
        "redis+socket://run/redis.sock",
        "sentinel://?master_name=m",
        "sentinel://one:1;redis://two/0?master_name=m",
        "sentinel://one:1,:2/0?master_name=m",
        "sentinel://:pw@one:1,:pw@two:2/0?master_name=m",
        "sentinel://one:1,me:pw@two:2/0?master_name=m",
        "redis+cluster://",
        "redis+cluster://one:x",
    ],
)
def test_a_malformed_url_is_refused_with_one_that_is_not(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"coord_url is malformed, it is not .* write coord_url = '\w"
    ) as refused:
        address(url)

    assert refused.value.__cause__ is None


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
def test_a_malformed_url_of_a_socket_is_refused_with_one_of_a_socket(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"write coord_url = '{re.escape(scheme)}:///"):
        address(f"{scheme}://run/redis.sock")


@pytest.mark.parametrize("database", ["/99999999999", "/0?db=99999999999", "/0?db=-1", "/0?db=x"])
def test_a_database_that_no_server_has_is_refused(database: str) -> None:
    with pytest.raises(ConfigurationError, match="option of the wrong kind"):
        address(f"redis://host{database}")


def test_a_refusal_repeats_no_password() -> None:
    for url in (
        "redis://user:123?hunter2@host/0",
        "redis://user:123?hunter2=4@host/0",
        "sentinel://:hunter2@a:1,:hunter2@b:2/0?master_name=m",
        "redis://:hunter2@host:port",
        "sentinel://:hunter2@a/0",
        "redis+cluster://:hunter2@a/3",
        "redis://:hunter2@h?no=1",
    ):
        with pytest.raises(ConfigurationError) as refused:
            address(url)
        assert "hunter2" not in str(refused.value)


def test_sentinels_need_the_name_of_what_they_watch() -> None:
    with pytest.raises(ConfigurationError, match="names Sentinels, and not the server that they watch: .*master_name"):
        address(SENTINELS)
    assert address(SENTINELS, master_name="m").master_name == "m"


def test_sentinels_speak_tls_only_where_somebody_says_so() -> None:
    """As for Celery, whose `broker_use_ssl` is the servers'."""
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem", "master_name": "m"}

    plain, both = address(SENTINELS, **tls), address(SENTINELS, **tls, sentinel_kwargs={"ssl": True})
    named = address(SENTINELS.replace("sentinel", "sentinels"), **tls)

    assert plain.is_tls
    assert (plain.sentinel_options["ssl"], "ssl_ca_certs" in plain.sentinel_options) == (False, False)
    for found in (both, named):
        assert (found.sentinel_options["ssl"], found.sentinel_options["ssl_ca_certs"]) == (True, "/ca.pem")


def test_no_option_of_a_sentinel_makes_an_act_take_longer() -> None:
    found = address(SENTINELS, master_name="m", sentinel_kwargs={"socket_timeout": 500})

    for sentinel in found._sentinel().sentinels:
        assert sentinel.connection_pool.connection_kwargs["socket_timeout"] == 1.0


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis://:p@ss@host", "p@ss"),
        ("redis://host/0?password=p@ss", "p@ss"),
        ("redis+cluster://:p@ss@one:1,two", "p@ss"),
        ("redis+cluster://me:12,pw@one:1,two", "12,pw"),
        ("redis://host/0?client_name=worker@host", None),
        ("unix://localhost/run/redis.sock", None),
    ],
)
def test_what_can_mean_but_one_thing_need_not_be_quoted(url: str, password: str | None) -> None:
    assert address(url).options.get("password") == password


def test_a_password_may_have_a_comma() -> None:
    assert address("redis://:a,b@host").options["password"] == "a,b"
    assert address("redis+cluster://:a,b@one,two").options["password"] == "a,b"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ssl_ca_certs": "/ca.pem"}, "speaks of TLS, and the URL of none"),
        ({"sentinel_kwargs": "pw"}, "sentinel_kwargs is a dictionary"),
        ({"min_other_sentinels": "x"}, "min_other_sentinels a number"),
        ({"client_name": "my app"}, "client_name takes neither spaces"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        address("redis://host", **options)


def test_a_cluster_has_no_databases() -> None:
    with pytest.raises(ConfigurationError, match="names a database, and a cluster has none"):
        address("redis+cluster://one/3")


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if "socket" not in scheme and scheme != "unix"])
def test_one_act_is_bounded(scheme: str) -> None:
    found = Address.of(f"{scheme}://host?master_name=m", {}, timeout=0.7)

    options = found.client(("host", 1)).connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.7, 0.7)
    assert options["retry"].get_retries() == 0 if hasattr(options["retry"], "get_retries") else True


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("socket_timeout=500", "coord_url: 'socket_timeout' is the setting coord_store_timeout: write"),
        ("max_connections=3", "coord_url: 'max_connections' is the setting coord_max_connections: write"),
        ("visibility_timeout=60", "coord_url: there is no option 'visibility_timeout'"),
        ("sokcet_timeout=3", "coord_url: there is no option 'sokcet_timeout': did you mean 'socket_timeout'"),
        ("protocl=3", "coord_url: there is no option 'protocl': did you mean 'protocol'"),
    ],
)
def test_what_a_url_says_is_heeded_or_refused_by_its_name(query: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        settings_and_address(coord_url=f"redis://host/0?{query}")


@pytest.mark.parametrize(
    ("named", "url"),
    [
        ("redis://h/0?visibility_timeout=5&client_name=us&socket_timeout=9", "redis://h/0?client_name=us"),
        ("sentinel://a:1/0?x=1;sentinel://b:2/0?x=1", "sentinel://a:1/0;sentinel://b:2/0"),
        ("redis+socket:///s.sock?virtual_host=3&x=1", "redis+socket:///s.sock?virtual_host=3"),
    ],
)
def test_what_a_borrowed_url_says_to_celery_alone_is_left_out(named: str, url: str) -> None:
    found = settings_and_address(broker_url=named, broker_transport_options={"master_name": "m", "client_name": "us"})

    assert found.url == url
    assert found.transport_options["client_name"] == "us"


def test_the_urls_own_words_count_for_more_than_the_options_beside_it() -> None:
    found = address(
        "redis://:url@h?health_check_interval=3", password="beside", health_check_interval=2, client_name="us"
    )

    said = {"password": "url", "health_check_interval": 3, "client_name": "us"}
    assert said.items() <= found.options.items()


def test_transport_options_are_those_of_the_result_backend_or_the_broker_whose_servers_they_are() -> None:
    kept = {"visibility_timeout": 60, "socket_timeout": 500}  # the broker's own business
    backend = {"result_backend": SENTINELS, "result_backend_transport_options": {"master_name": "results", **kept}}
    broker = {
        "broker_url": CLUSTER.replace("redis+cluster", "redis").split(",")[0],
        "broker_transport_options": {"client_name": "us"},
    }

    assert settings(**backend).transport_options == {"master_name": "results"}
    assert settings(**backend).url == SENTINELS
    same = "sentinel://two:2;sentinel://one:1/7"
    assert settings(**backend, coord_url=same).transport_options == {"master_name": "results"}
    assert settings(**backend, **broker, coord_url="redis://one:1/7").transport_options == {"client_name": "us"}
    assert settings(**backend, **broker, coord_url="redis://other:1").transport_options == {}
    own = {"master_name": "mine"}
    assert settings(**backend, coord_url=same, coord_transport_options=own).transport_options == own


def test_a_list_of_brokers_is_one_where_it_names_sentinels() -> None:
    brokers = ["sentinel://one:1/0", "sentinel://two:2/0"]

    found = settings(broker_url=brokers, broker_transport_options={"master_name": "m"})

    assert Address.of(found.url, found.transport_options, timeout=1).hosts == (("one", 1), ("two", 2))
    assert found.transport_options == {"master_name": "m"}


def test_with_a_prefix_the_settings_of_others_are_theirs() -> None:
    """Django's settings are many, and one of them may begin as ours do."""
    theirs = SimpleNamespace(
        CELERY_COORD_LEASE_TTL=5, COORD_REFERENCE_SYSTEM=4326, COORD_URL="https://maps.example.org"
    )
    app = Celery(set_as_current=False, broker="redis://one:1")
    app.config_from_object(theirs, namespace="CELERY")

    found = Settings.of(app)

    assert (found.url, found.lease_ttl) == ("redis://one:1", 5)


def test_tls_of_the_broker_or_the_result_backend_is_tls_of_the_store() -> None:
    tls = {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED}
    for conf in (
        {"broker_url": "redis://one:1/0", "broker_use_ssl": tls},
        {"result_backend": "redis://one:1/0", "redis_backend_use_ssl": tls},
    ):
        found = settings(**conf)
        built = Address.of(found.url, found.transport_options, timeout=1)
        assert built.is_tls
        assert built.options["ssl_ca_certs"] == "/ca.pem"
        assert built.options["ssl_cert_reqs"] == "required"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("mymaster", "coord_transport_options is a dictionary, not a value of type str"),
        ({"master": "m"}, "there is no option 'master': did you mean 'master_name'"),
        ({"socket_timeout": 5}, "'socket_timeout' is the setting coord_store_timeout"),
    ],
)
def test_a_wrong_transport_option_is_refused(options: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        settings(coord_url="redis://h", coord_transport_options=options)


@pytest.mark.parametrize(
    ("name", "value"), [("coord_min_replicas", -1), ("coord_min_replicas", True), ("coord_max_connections", 0)]
)
def test_a_number_is_one(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is a number of at least"):
        settings(coord_url="redis://h", **{name: value})
