"""Headers and requests are read as people paste them."""

from __future__ import annotations

import base64

import pytest
from click.testing import CliRunner

from dispatcherd.cli.main import cli
from dispatcherd.receiver.signing import new_secret, sign_headers
from dispatcherd.tools.message import MessageError, read_headers, read_request

PAIRS = (("webhook-id", "evt_1"), ("Webhook-Signature", "v1,ab+c/d= v1,efg="))
SECRET = new_secret()
BODY = b'{"a": 1}'


@pytest.mark.parametrize(
    "text",
    [
        "webhook-id: evt_1\nWebhook-Signature: v1,ab+c/d= v1,efg=\n",
        "POST /hook HTTP/1.1\r\nwebhook-id:evt_1\r\nWebhook-Signature: v1,ab+c/d= v1,efg=\r\n\r\n",
        "> POST /a HTTP/1.1\n> webhook-id: evt_1\n> Webhook-Signature: v1,ab+c/d= v1,efg=\n>\n",
        "-H 'webhook-id: evt_1' \\\n  -H 'Webhook-Signature: v1,ab+c/d= v1,efg='",
        '-H "webhook-id: evt_1"\n--header "Webhook-Signature: v1,ab+c/d= v1,efg="',
        '{"webhook-id": "evt_1", "Webhook-Signature": "v1,ab+c/d= v1,efg="}',
        '{"webhook-id": ["evt_1"], "Webhook-Signature": ["v1,ab+c/d= v1,efg="]}',
        '[["webhook-id", "evt_1"], ["Webhook-Signature", "v1,ab+c/d= v1,efg="]]',
    ],
)  # fmt: skip
def test_headers_are_read_from_lines_curl_and_json(text: str) -> None:
    assert read_headers(text) == PAIRS


@pytest.mark.parametrize("text", ["what is this", "{1}", '"x"', '{"a"', "[1, 2]"])
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(MessageError):
        read_headers(text)


@pytest.mark.parametrize("blank", [b"\r\n\r\n", b"\n\n"])
def test_a_request_as_http_keeps_its_body_byte_for_byte(blank: bytes) -> None:
    end = blank[: len(blank) // 2]
    body = b"\x00\xff\r\n\r\n\n\n " + BODY
    head = end.join([b"POST / HTTP/1.1", b"webhook-id: evt_1"])
    message = read_request(head + blank + body)
    assert message.headers == (("webhook-id", "evt_1"),) and message.body == body


def test_a_request_as_json_may_hold_text_or_base64() -> None:
    for more in (b'"body": "{\\"a\\": 1}"', b'"body_base64": "' + base64.b64encode(BODY) + b'"'):
        message = read_request(b'{"headers": [["webhook-id", "evt_1"]], ' + more + b"}")
        assert message.body == BODY
    with pytest.raises(MessageError, match="parsed JSON"):
        read_request(b'{"headers": {}, "body": {"a": 1}}')


# --- the command -----------------------------------------------------------------------------


def run(*arguments: str, stdin: bytes = BODY, secret: str = SECRET) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["verify", *arguments], input=stdin,
                              env={"WEBHOOK_SECRET": secret})  # fmt: skip
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def lines(stamp: int = 1_800_000_000) -> list[str]:
    headers = sign_headers([SECRET], "evt_1", stamp, BODY)
    return [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]


def test_the_command_says_ok_or_what_is_wrong_and_its_exit_code_agrees() -> None:
    assert run(*lines(), "--at", "1800000010") == (
        0, "ok: the request verifies (evt_1, signed 10 s ago)\n",
    )  # fmt: skip
    code, output = run(*lines(), "--at", "request", stdin=BODY + b"\n")
    assert code == 1 and "trailing_line_break" in output
    code, output = run(*lines(), "--at", "1800000900", "--json")
    assert code == 1 and '"code":"stale"' in output
    assert run(*lines(), "--computed", lines()[-1].split(": ")[1])[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give the headers"),
        (["-H", "no header"], "not `Name: value`"),
        ([*lines(), "--secret", SECRET], "shell's history"),
        ([*lines(), "--secret", "env:NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set"),
        ([*lines(), "--secret", "file:/nope"], "cannot be read"),
        ([*lines(), "--body", "/nope"], "cannot be read"),
        ([*lines(), "--at", "yesterday"], "Unix seconds"),
        (["--request", "/nope", *lines()], "nothing beside it"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_refused_without_the_secret(
    arguments: list[str], said: str
) -> None:
    code, output = run(*arguments)
    assert code == 2 and said in output
    assert SECRET not in output
