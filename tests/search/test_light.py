"""Reading a search is quick: it imports no torch."""

import subprocess
import sys

from tiny_search import finish, tiny_settings

STATUS = """
import sys
from flows.cli import main
sys.argv[0] = "blockqnn"
status = main(["status", "--name", sys.argv[2], "--runs", sys.argv[1]])
print(status, "torch" in sys.modules)
"""


def test_status_imports_no_torch(tmp_path):
    finish(tmp_path / "tiny", tiny_settings(), most=3)
    command = [sys.executable, "-c", STATUS, tmp_path, "tiny"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "tiny" in result.stdout
    assert result.stdout.splitlines()[-1] == "0 False"
