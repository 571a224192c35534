"""Bodies prepared for a run."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import orjson
import pytest

from rtb.errors import ConfigError
from rtb.lab.load.payload import ID_BYTES, payloads, request_ids
from rtb.openrtb import decode_request

SHARED = Path(__file__).parents[5] / "shared" / "data" / "nobidder-bid_request.json"
ID = b"f" * ID_BYTES


@pytest.mark.parametrize("source", ["1k", "3.5k"])
def test_generated_bodies_take_another_id(source: str) -> None:
    """The id put in is the request's id, the size is what it says, and the rest stays a valid request."""
    for payload in payloads(source, 50, seed=3, users=100):
        body = payload.body(ID)
        assert len(body) == payload.size
        assert decode_request(body).id == ID.decode()


def test_the_same_seed_prepares_the_same_bodies() -> None:
    """Two runs with one seed send the same bodies."""
    assert payloads("1k", 20, seed=3, users=100) == payloads("1k", 20, seed=3, users=100)


def test_house_bodies_take_another_id() -> None:
    """In the house format the id is request_id."""
    (payload,) = payloads("house", 1, seed=3, users=100)
    assert orjson.loads(payload.body(ID))["request_id"] == ID.decode()


def test_a_file_keeps_its_content_but_id_and_user(tmp_path: Path) -> None:
    """Every body is the file's request with another id and a varied user id, everything else as it was."""
    file = tmp_path / "request.json"
    request = {"id": "x", "imp": [{"id": "1", "banner": {}}], "user": {"id": "y", "yob": 1976}, "ext": {"x": [1]}}
    file.write_text(orjson.dumps(request).decode())
    found = [orjson.loads(payload.body(ID)) for payload in payloads(str(file), 50, seed=1, users=1000)]
    users = {body["user"].pop("id") for body in found}
    assert len(users) > 5
    for body in found:
        assert body == {**request, "id": ID.decode(), "user": {"yob": 1976}}


@pytest.mark.skipif(not SHARED.exists(), reason="peers' data are not beside the repository")
def test_a_peers_large_request_keeps_its_size() -> None:
    """nobidder's load test body of 3.5 KB stays within 5 % of its size, valid, whatever its layout."""
    for payload in payloads(str(SHARED), 20, seed=1, users=1000):
        assert payload.size == pytest.approx(SHARED.stat().st_size, rel=0.05)
        assert decode_request(payload.body(ID)).id == ID.decode()


@pytest.mark.parametrize("content", [None, "not JSON", "[1]"])
def test_a_file_that_is_no_request_is_refused(tmp_path: Path, content: str | None) -> None:
    """Missing, not JSON, or no object: one line that names the file."""
    file = tmp_path / "body.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"body\.json"):
        payloads(str(file), 1, seed=1, users=1)


def test_request_ids_are_unique_and_of_fixed_length() -> None:
    """Ids do not repeat within a run, nor between runs."""
    one, two = list(islice(request_ids(1), 1000)), list(islice(request_ids(2), 1000))
    assert len({*one, *two}) == 2000
    assert {len(request_id) for request_id in one} == {ID_BYTES}
