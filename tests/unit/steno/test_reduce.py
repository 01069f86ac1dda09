"""``steno reduce``: files and folders in, one JSON line each out."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steno.cli import main

Line = dict[str, Any]

STENO = "import sys; from steno.cli import main; sys.exit(main())"

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
CHAT = {"choices": [{"index": 0, "message": {"content": "12345678"}, "finish_reason": "stop"}]}


def write_case(folder: Path, response: object = ANSWER, **meta: object) -> Path:
    """A case folder as the recorded corpora have them."""
    folder.mkdir(parents=True)
    said = {"host": "api.anthropic.com", "endpoint_path": "/v1/messages", "status": 200} | meta
    (folder / "meta.json").write_text(json.dumps({"response_content_type": "application/json"} | said))
    (folder / "response.json").write_text(json.dumps(response))
    (folder / "request.json").write_text("")
    return folder


def told(capfd: pytest.CaptureFixture[str]) -> list[Line]:
    """The lines on stdout."""
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def only(capfd: pytest.CaptureFixture[str]) -> Line:
    """The one line on stdout."""
    (line,) = told(capfd)
    return line


def test_a_bare_file_is_reduced_by_what_the_options_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer"
    file.write_bytes(gzip.compress(json.dumps(ANSWER).encode()))
    request = tmp_path / "request"
    request.write_text('{"model": "asked", "stream": true}')
    options = ["--path=/v1/messages?beta=true", "--content-type=application/json", "--content-encoding=gzip"]
    assert main(["reduce", str(file), *options, f"--request={request}"]) == 0
    line = only(capfd)
    assert line["case"] == str(file)
    assert (line["turn"]["text"], line["turn"]["model"], line["turn"]["stream"]) == ("hello", "claude", True)
    assert (line["turn"]["provider"], line["turn"]["endpoint"]) == ("anthropic", "messages")


def test_a_bare_file_is_framed_by_its_extension(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.ndjson"
    file.write_text(
        '{"message":{"content":"a"}}\n{"message":{"content":"b"},"done":true,"done_reason":"stop"}\n'
    )
    assert main(["reduce", str(file), "--path=/api/chat"]) == 0
    turn = only(capfd)["turn"]
    assert (turn["text"], turn["stream"], turn["partial"]) == ("ab", True, False)


def test_the_host_decides_where_the_path_does_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The provider's name is the host's; the dialect is the path's."""
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(CHAT))
    assert main(["reduce", str(file), "--path=/v1/chat/completions", "--host=api.mistral.ai"]) == 0
    assert only(capfd)["turn"]["provider"] == "mistral"


def test_the_request_decides_where_the_path_and_the_host_do_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One path, many servers: Cohere's own request has a ``message``."""
    file = tmp_path / "answer.json"
    file.write_text('{"text": "hi", "generation_id": "g", "finish_reason": "COMPLETE"}')
    request = tmp_path / "request"
    request.write_text('{"message": "hello", "model": "command"}')
    assert main(["reduce", str(file), "--path=/v1/chat", f"--request={request}"]) == 0
    turn = only(capfd)["turn"]
    assert (turn["dialect"], turn["text"], turn["model"]) == ("cohere_v1", "hi", "command")


def test_a_model_in_the_path_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.json"
    file.write_text('{"output": {"message": {"content": [{"text": "x"}]}}, "stopReason": "end_turn"}')
    assert main(["reduce", str(file), "--path=/model/us.amazon%3Anova/converse"]) == 0
    assert only(capfd)["turn"]["model"] == "us.amazon:nova"


def test_a_case_folder_is_named_as_it_was_given(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = f"{write_case(tmp_path / 'case')}/"
    assert main(["reduce", given]) == 0
    line = only(capfd)
    assert line["case"] == given
    assert line["turn"]["text"] == "hello"


def test_a_parent_folder_means_all_below_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("b/two", "a/deep/er", "b/one"):
        write_case(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no case")
    assert main(["reduce", str(tmp_path)]) == 0
    found = [line["case"] for line in told(capfd)]
    assert found == [f"{tmp_path}/{name}" for name in ("a/deep/er", "b/one", "b/two")]


def test_an_http_error_is_always_a_turn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = {"error": {"type": "rate_limit_error", "message": "slow down"}}
    assert main(["reduce", str(write_case(tmp_path / "case", body, status=429))]) == 0
    turn = only(capfd)["turn"]
    error = {"status": 429, "type": "rate_limit_error", "message": "slow down", "where": "http"}
    assert (turn["provider_error"], turn["result"], turn["text"]) == (error, "error", "")
    assert "estimate" not in turn


def test_the_status_of_a_bare_file_is_an_option(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.json"
    file.write_text('{"message": "no"}')
    assert main(["reduce", str(file), "--path=/v2/chat", "--status=401"]) == 0
    assert only(capfd)["turn"]["provider_error"]["status"] == 401


@pytest.mark.parametrize(
    ("path", "host", "reason"),
    [
        ("/v1/embeddings", "api.openai.com", "non_turn_request"),
        ("/nothing/we/know", "example.org", "non_turn_request"),
        ("/v1/complete", "api.anthropic.com", "unknown_provider"),
    ],
)
def test_what_is_no_turn_is_excluded_by_name(
    path: str, host: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_case(tmp_path / "case", endpoint_path=path, host=host)
    assert main(["reduce", str(folder)]) == 0
    assert only(capfd) == {"case": str(folder), "excluded": reason}


def test_an_empty_response_is_excluded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_case(tmp_path / "case")
    (folder / "response.json").write_text("")
    assert main(["reduce", str(folder)]) == 0
    assert only(capfd)["excluded"] == "empty_response"


def test_what_was_read_but_cannot_be_reduced_is_an_error_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The input was read: that is no failure of the command."""
    folder = write_case(tmp_path / "case")
    (folder / "response.json").write_text("<html>")
    assert main(["reduce", str(folder)]) == 0
    assert only(capfd)["error"].startswith("reducer_error: ")


def test_a_coding_that_cannot_be_undone_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.json"
    file.write_text("not gzip")
    for status in ("200", "500"):
        options = ["--path=/v1/messages", "--content-encoding=gzip", f"--status={status}"]
        assert main(["reduce", str(file), *options]) == 0
        assert only(capfd)["error"].startswith("response_decode: ")


@pytest.mark.parametrize(
    "broken", ["missing", "no_meta", "no_response", "two_responses", "bad_meta", "list_meta"]
)
def test_an_input_that_cannot_be_read_fails_the_command_and_no_other_input(
    broken: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    if broken != "missing":
        write_case(bad)
    match broken:
        case "no_meta":
            (bad / "meta.json").unlink()
        case "no_response":
            (bad / "response.json").unlink()
        case "two_responses":
            (bad / "response.sse").write_text("")
        case "bad_meta":
            (bad / "meta.json").write_text("{")
        case "list_meta":
            (bad / "meta.json").write_text("[]")
        case _:
            pass
    good = write_case(tmp_path / "good")
    assert main(["reduce", str(bad), str(good)]) == 1
    written = capfd.readouterr()
    first, second = (json.loads(line) for line in written.out.splitlines())
    assert first["case"] == str(bad)
    assert first["error"]
    assert second["turn"]["text"] == "hello"
    assert str(bad) in written.err


def test_a_bare_file_without_a_path_is_told_what_is_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answer.json"
    file.write_text("{}")
    assert main(["reduce", str(file)]) == 1
    assert "--path" in capfd.readouterr().err


def test_sizes_are_guessed_beside_the_usage_only_where_none_was_sent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """About four characters a token; the usage itself stays empty."""
    chat = write_case(tmp_path / "a", CHAT, endpoint_path="/v1/chat/completions", host="api.openai.com")
    (chat / "request.json").write_text('{"messages": [{"role": "user", "content": "0123456789"}]}')
    write_case(tmp_path / "b")
    assert main(["reduce", str(tmp_path)]) == 0
    without, counted = (line["turn"] for line in told(capfd))
    assert without["estimate"] == {"input_tokens": 3, "output_tokens": 2}
    assert without["usage"]["input_tokens"] is None
    assert "estimate" not in counted


def test_pretty_output_is_the_same_in_more_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_case(tmp_path / "case")
    assert main(["reduce", str(folder)]) == 0
    plain = only(capfd)
    assert main(["reduce", "--pretty", str(folder)]) == 0
    pretty = capfd.readouterr().out
    assert pretty.count("\n") > 20
    assert json.loads(pretty) == plain


def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path) -> None:
    """As in ``steno reduce … | head -1``."""
    for number in range(300):
        write_case(tmp_path / str(number), ANSWER | {"id": "x" * 1000})
    process = subprocess.Popen(
        [sys.executable, "-m", "steno", "reduce", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()
