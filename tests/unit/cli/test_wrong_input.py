"""What commands say to wrong input: one line that names what is wrong, and how to write it; never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from click import UsageError
from click.testing import CliRunner

from rtb.cli import cli
from rtb.errors import RtbError

NOBODY = "http://127.0.0.1:1/openrtb2/auction"


def refusal(*arguments: str) -> str:
    """The line that refuses a command, as `main` prints it."""
    with pytest.raises((RtbError, UsageError)) as refused:
        CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    said = refused.value.format_message() if isinstance(refused.value, UsageError) else str(refused.value)
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    ("arguments", "option", "says"),
    [
        (("load", "--rate", "nan"), "--rate", "not a finite number"),
        (("load", "--duration", "inf"), "--duration", "not a finite number"),
        (("load", "--duration", "0"), "--duration", "not in the range x>0"),
        (("load", "--warmup", "-1"), "--warmup", "not in the range x>=0"),
        (("load", "--deadline-ms", "0"), "--deadline-ms", "not in the range x>0"),
        (("load", "--give-up-ms", "-5"), "--give-up-ms", "not in the range x>0"),
        (("load", "--p99-ms", "nan"), "--p99-ms", "not a finite number"),
        (("load", "--max-lag-ms", "nan"), "--max-lag-ms", "not a finite number"),
        (("load", "--pid", "999999999"), "--pid", "there is no process 999999999; leave it out"),
        (("load", "--broker", "rabbit"), "--broker", "write amqp://user:password@host/vhost"),
        (("load", "--broker", "amqp:///vhost"), "--broker", "write amqp://user:password@host/vhost"),
        (("load", "--broker", "http://u:secret@h"), "--broker", "'h': write amqp://"),
        (("demo", "--rate", "nan"), "--rate", "not a finite number"),
        (("certify", NOBODY, "--dsp", "--rate", "nan"), "--rate", "not a finite number"),
        (("campaigns", "set-bid", "a", "many"), "BID", "not a valid float"),
        (("lab", "dsps", "--errors", "nan"), "--errors", "not a finite number"),
        (("lab", "dsps", "2", "--misbehave", "3:hang"), "--misbehave 3", "bidders are 1 to 2"),
        (("lab", "dsps", "2", "--misbehave", "1:sulk"), "--misbehave", "kinds are none, hang, "),
        (("lab", "dsps", "--latency-ms", "5,nan"), "--latency-ms", "quantiles are finite, 0 or more, and ascend"),
    ],
)
def test_a_number_that_makes_no_sense(arguments: tuple[str, ...], option: str, says: str) -> None:
    """The option is named, before anything is begun."""
    said = refusal(*arguments)
    assert option in said
    assert says in said


def test_an_exchange_is_no_bidder() -> None:
    """Both at once, or neither: which of the two is asked for."""
    for options in ((), ("--exchange", "--dsp")):
        assert refusal("certify", NOBODY, *options) == "say what is at the URL: --exchange or --dsp"


def test_a_report_that_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    """What could be written is left as it was: nothing, or the report of an earlier run."""
    said = refusal("load", "--json", str(tmp_path / "missing" / "run.json"))
    assert "--json" in said
    assert said.endswith("cannot be written: No such file or directory")
    kept, fresh = tmp_path / "kept.json", tmp_path / "fresh.json"
    kept.write_text("{}")
    for file in (kept, fresh):
        refusal("load", "--json", str(file), "--rate", "nan")
    assert kept.read_text() == "{}"
    assert not fresh.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"id": "a"}, {"campaign_id": 5}]', "campaigns[1].id: required"),
        ('{"campaigns": [7]}', "campaigns[0].id: required"),
        ("{}", 'must be an array of campaigns, or an object with "campaigns"'),
        ("[", "not JSON: "),
    ],
)
def test_campaigns_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    """The file is named, and which of many; no daemon is asked."""
    file = tmp_path / "campaigns.json"
    file.write_text(text)
    said = refusal("campaigns", "import", str(file))
    assert said.startswith(f"{file}: {says}")


@pytest.mark.parametrize("command", [("bidders", "list"), ("queues",), ("audit",)])
def test_what_only_a_daemon_knows(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Where it was looked for, and what to do."""
    socket = tmp_path / "rtb.sock"
    said = refusal("--set", f"admin.socket={socket}", *command)
    assert f"no daemon runs on admin.socket {socket}" in said
    assert said.endswith("start one, or set admin.socket to that of the one that runs")
