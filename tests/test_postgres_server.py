"""The PostgreSQL that other tests use: real, with pgvector, and gone with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psycopg
import pytest

from tests.helpers import ROOT, eventually
from tests.postgres import PostgresServer


def test_it_has_pgvector_and_every_database_is_new(postgres: PostgresServer) -> None:
    for _ in range(2):
        with psycopg.connect(postgres.url()) as conn:
            conn.execute("CREATE EXTENSION vector")
            assert conn.execute("SELECT '[1,2]'::vector <-> '[1,4]'::vector").fetchone() == (2.0,)


def test_it_asks_for_the_password(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url().replace("secret", "guess"))


def test_it_ends_with_the_process_that_started_it() -> None:
    code = """
import time
from tests.postgres import postgres_server
with postgres_server() as server:
    print(server._process.pid, server.address("postgres"), server._folder, flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        pid, url, folder = owner.stdout.readline().split()
        psycopg.connect(url).close()
        owner.send_signal(signal.SIGKILL)

    def is_gone() -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=1).close()
            return False
        return not os.path.exists(f"/proc/{pid}")  # noqa: PTH110

    eventually(is_gone, 10)
    subprocess.run(["rm", "-rf", folder], check=True)
