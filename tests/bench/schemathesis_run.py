"""schemathesis against the service's own OpenAPI document: all phases and checks, over a real socket.

Run as `python tests/bench/schemathesis_run.py MODEL [MODEL ...] [--cases 10000]`, where a model is FOLDER or NAME=FOLDER. Prints
schemathesis' report and exits with 1 if the service answered with a 5xx, or otherwise than its document says.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kdnas.serving.run import bind
from kdnas.serving.server import url_of

HERE = Path(__file__).resolve().parent


def schemathesis(url: str, cases: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against a service.

    Args:
        url: its address.
        cases: random cases for each endpoint; the cases of the examples and coverage phases come on top.
        words: further options of `schemathesis run`.
    """
    start = "from schemathesis.cli import schemathesis; schemathesis()"
    program = [sys.executable, "-c", start, "--config-file", str(HERE / "schemathesis.toml"), "run"]
    options = ["--max-examples", str(cases), "--generation-database", "none", "--no-color", *words]
    paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:  # it writes its cache into the current folder
        return subprocess.run(
            [*program, f"{url}/openapi.json", *options],
            env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": paths},
            cwd=folder,
            capture_output=True,
            text=True,
        )


def main() -> int:
    """Serve the models, run schemathesis, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="FOLDER or NAME=FOLDER")
    parser.add_argument("--cases", type=int, default=10_000, help="random cases for each endpoint")
    given = parser.parse_args()
    with bind("127.0.0.1", 0) as free:
        url = url_of(free)
    command = [sys.executable, "-m", "kdnas.cli", "serve", *given.models, "--port", url.rsplit(":", 1)[1]]
    with subprocess.Popen(command) as server:
        try:
            done = schemathesis(url, given.cases, "--wait-for-schema", "60")
        finally:
            server.terminate()
    print(done.stdout, done.stderr, sep="\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
