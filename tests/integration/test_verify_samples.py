"""The code that the event documents show for verifying: each language, on the same requests."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from standardwebhooks import Webhook

from dispatcherd.events.render.about import samples

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret of 24 byte").decode()
BODY = '{"type": "user.updated", "data": {"name": "Işıl"}}\n'.encode()
CODE = {sample.language: sample.code for sample in samples()}

# Each program reads lines of secret, id, timestamp, signatures and body, the last two in base64,
# and prints true or false for each.
PYTHON = """
import sys
from verify import verify
for line in sys.stdin:
    secret, id_, sent, signatures, body = line.split()
    headers = {"webhook-id": id_, "webhook-timestamp": sent}
    headers["webhook-signature"] = base64.b64decode(signatures).decode()
    print(str(verify(secret, headers, base64.b64decode(body))).lower())
"""
NODE = """
import { verify } from "./verify.mjs";
import { readFileSync } from "node:fs";
for (const line of readFileSync(0, "utf8").trim().split("\\n")) {
  const [secret, id, sent, signatures, body] = line.split(" ");
  const headers = { "webhook-id": id, "webhook-timestamp": sent };
  headers["webhook-signature"] = Buffer.from(signatures, "base64").toString();
  console.log(verify(secret, headers, Buffer.from(body, "base64")));
}
"""
GO = """
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"

	"example.com/check/webhook"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		part := strings.Split(lines.Text(), " ")
		signatures, _ := base64.StdEncoding.DecodeString(part[3])
		body, _ := base64.StdEncoding.DecodeString(part[4])
		headers := http.Header{}
		headers.Set("webhook-id", part[1])
		headers.Set("webhook-timestamp", part[2])
		headers.Set("webhook-signature", string(signatures))
		fmt.Println(webhook.Verify(part[0], headers, body))
	}
}
"""
JAVA = """
import java.util.Base64;
import java.util.Map;
import java.util.Scanner;

final class Check {
  public static void main(String[] arguments) throws Exception {
    Scanner lines = new Scanner(System.in);
    while (lines.hasNextLine()) {
      String[] part = lines.nextLine().split(" ");
      String signatures = new String(Base64.getDecoder().decode(part[3]));
      Map<String, String> headers = Map.of("webhook-id", part[1], "webhook-timestamp", part[2],
          "webhook-signature", signatures);
      byte[] body = Base64.getDecoder().decode(part[4]);
      System.out.println(Verify.verify(part[0], headers, body));
    }
  }
}
"""
PHP = """<?php
require 'verify.php';
foreach (file('php://stdin', FILE_IGNORE_NEW_LINES) as $line) {
    [$secret, $id, $sent, $signatures, $body] = explode(' ', $line);
    $headers = ['webhook-id' => $id, 'webhook-timestamp' => $sent];
    $headers['webhook-signature'] = base64_decode($signatures);
    echo verify($secret, $headers, base64_decode($body)) ? "true\\n" : "false\\n";
}
"""
RUBY = """
require_relative "verify"
STDIN.each_line do |line|
  secret, id, sent, signatures, body = line.split
  headers = { "webhook-id" => id, "webhook-timestamp" => sent }
  headers["webhook-signature"] = Base64.strict_decode64(signatures)
  puts verify(secret, headers, Base64.strict_decode64(body))
end
"""
SHELL = """
. ./verify.sh
while read -r secret id sent signatures body; do
  signatures=$(printf %s "$signatures" | openssl base64 -d -A)
  if printf %s "$body" | openssl base64 -d -A | verify "$secret" "$id" "$sent" "$signatures"
  then echo true; else echo false; fi
done
"""


class Program(NamedTuple):
    """How a language is run in a folder that has the sample and the program beside it."""

    tool: str
    sample: str
    program: str
    source: str
    commands: tuple[tuple[str, ...], ...]
    """The last one reads the requests."""


PROGRAMS = {
    "Python": Program(
        "python3", "verify.py", "check.py", f"import base64{PYTHON}", (("python3", "check.py"),)
    ),
    "Node.js": Program("node", "verify.mjs", "check.mjs", NODE, (("node", "check.mjs"),)),
    "Go": Program(
        "go",
        "webhook/verify.go",
        "main.go",
        GO,
        (("go", "mod", "init", "example.com/check"), ("go", "run", ".")),
    ),
    "Java": Program(
        "javac",
        "Verify.java",
        "Check.java",
        JAVA,
        (("javac", "Verify.java", "Check.java"), ("java", "Check")),
    ),
    "PHP": Program("php", "verify.php", "check.php", PHP, (("php", "check.php"),)),
    "Ruby": Program("ruby", "verify.rb", "check.rb", RUBY, (("ruby", "check.rb"),)),
    "Shell": Program("openssl", "verify.sh", "check.sh", SHELL, (("sh", "check.sh"),)),
}


def requests(now: float) -> dict[str, tuple[str, bool]]:
    """What is asked → a line for a program, and whether it is to be taken. Signatures are those of
    the reference implementation."""

    def signed(age_seconds: int = 0, secret: str = SECRET) -> tuple[str, str]:
        at = datetime.fromtimestamp(int(now) - age_seconds, UTC)
        return str(int(at.timestamp())), Webhook(secret).sign("evt_1", at, BODY.decode())

    def line(sent: str, signatures: str, body: bytes = BODY) -> str:
        encoded = [base64.b64encode(part).decode() for part in (signatures.encode(), body)]
        return " ".join([SECRET, "evt_1", sent, *encoded])

    sent, right = signed()
    _, others = signed(secret=OTHER)
    return {
        "good": (line(sent, right), True),
        "four minutes late": (line(*signed(age_seconds=240)), True),
        "rotated": (line(sent, f"v1a,AAAA {others} {right}"), True),
        "tampered": (line(sent, right, BODY.replace(b"user", b"root")), False),
        "another secret": (line(sent, others), False),
        "stale": (line(*signed(age_seconds=600)), False),
        "from the future": (line(*signed(age_seconds=-600)), False),
        "another timestamp": (line(str(int(sent) - 1), right), False),
        "only a part of it": (line(sent, right[:-5]), False),
        "without a version": (line(sent, right.removeprefix("v1,")), False),
        "none": (line(sent, "-"), False),
    }


def test_every_language_that_is_shown_is_run() -> None:
    assert PROGRAMS.keys() == CODE.keys()


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_code_that_is_shown_takes_what_is_right_and_nothing_else(
    language: str, tmp_path: Path
) -> None:
    program = PROGRAMS[language]
    if shutil.which(program.tool) is None:
        words = f"{language} needs {program.tool}, which this machine has not"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    for name, source in ((program.sample, CODE[language]), (program.program, program.source)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source.lstrip("\n") + "\n")
    asked = requests(time.time())
    lines = "\n".join(line for line, _ in asked.values()) + "\n"
    for command in program.commands:
        done = subprocess.run(
            command, cwd=tmp_path, input=lines, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    answers = dict(zip(asked, done.stdout.split(), strict=True))
    assert answers == {name: str(right).lower() for name, (_, right) in asked.items()}
