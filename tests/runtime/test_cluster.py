"""A valid TF_CONFIG is parsed, and anything else gives one clear message."""

import json
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convae.errors import ConvaeError
from convae.runtime import cluster
from convae.runtime.cluster import Cluster, parse_tf_config

hosts = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,12}[a-z0-9])?|\[::1\]", fullmatch=True)
addresses = st.builds("{}:{}".format, hosts, st.integers(1, 65535))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=8,
)


@given(st.lists(addresses, min_size=1, max_size=8, unique=True), st.data())
def test_format_and_parse_are_inverse(workers: list[str], data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(workers) - 1))
    found = parse_tf_config(cluster.format_tf_config(tuple(workers), rank))
    assert found == Cluster(tuple(workers), rank)
    assert found.count == len(workers)
    assert found.address == workers[rank]
    assert workers[rank].endswith(f":{found.port}")


@given(st.text() | JSON.map(json.dumps))
def test_other_text_gives_one_message(text: str) -> None:
    with pytest.raises(ConvaeError, match=r"^TF_CONFIG: .* Right would be .*cluster"):
        parse_tf_config(text)


@given(st.dictionaries(st.sampled_from(["worker", "chief", "ps"]), JSON), JSON, JSON)
def test_only_user_errors_are_raised(addresses: dict[str, object], kind: object,
                                          index: object) -> None:  # fmt: skip
    tree = {"cluster": addresses, "task": {"type": kind, "index": index}}
    with suppress(ConvaeError):
        assert parse_tf_config(json.dumps(tree)).count > 0


def text(addresses: object, kind: object = "worker", index: object = 0) -> str:
    return json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ('{"cluster": ', "is not JSON"),
        ("[]", "must be a mapping"),
        ('{"task": {}}', "has no cluster"),
        ('{"cluster": {"worker": ["a:1"]}}', "has no task"),
        (text({"worker": []}), "names no worker"),
        (text({"worker": "a:1"}), "must be a list"),
        (text({"worker": ["a"]}), "host:port"),
        (text({"worker": ["a:0"]}), "host:port"),
        (text({"worker": ["a:65536"]}), "host:port"),
        (text({"worker": ["a:1", "b:1", "a:1"]}), "a:1 twice"),
        (text({"worker": ["a:1"], "chief": ["a:1"]}), "a:1 twice"),
        (text({"worker": ["a:1"], "ps": ["b:1"]}), "cluster has ps"),
        (text({"worker": ["b:1"], "chief": ["a:1", "c:1"]}), "must be one address"),
        (text({"worker": ["a:1"]}, "chief"), "task.type must be worker"),
        (text({"worker": ["a:1"]}, "worker", 1), "task.index must be 0"),
        (text({"worker": ["a:1", "b:1"]}, "worker", 2), "task.index must be from 0 to 1"),
        (text({"worker": ["a:1", "b:1"]}, "worker", -1), "Received: -1"),
        (text({"worker": ["a:1", "b:1"]}, "worker", True), "Received: True"),
        (text({"worker": ["a:1", "b:1"]}, "worker", "1"), "Received: '1'"),
    ],
)
def test_the_message_names_what_is_wrong(wrong: str, part: str) -> None:
    with pytest.raises(ConvaeError, match=part.replace("[", r"\[")):
        parse_tf_config(wrong)


def test_a_separate_chief_is_worker_0() -> None:
    tree = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    assert parse_tf_config(text(tree, "chief")) == Cluster(("c:1", "a:1", "b:1"), 0)
    found = parse_tf_config(text(tree, "worker", 1))
    assert (found.rank, found.address) == (2, "b:1")


def test_without_tf_config_there_is_no_cluster() -> None:
    assert cluster.find_cluster({}) is None
    assert cluster.find_cluster({"TF_CONFIG": " "}) is None
    assert cluster.find_cluster({"TF_CONFIG": text({"worker": ["a:1"]})}) == Cluster(("a:1",), 0)


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(ConvaeError, match=f"port {port}.*in use"):
            cluster.check_port(Cluster((f"127.0.0.1:{port}",), 0))
    cluster.check_port(Cluster((f"127.0.0.1:{port}",), 0))


def test_the_start_is_reported_only_to_a_launcher(tmp_path: Path) -> None:
    cluster.report_started({})
    cluster.report_started({"CONVAE_STARTED": str(tmp_path / "0")})
    assert (tmp_path / "0").exists()
