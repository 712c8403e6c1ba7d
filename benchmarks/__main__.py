"""Run every benchmark and keep what they print under benchmarks/results/.

    python -m benchmarks [--scale] [--quick] [--results DIR]

Takes about twenty minutes on two cores, and half an hour with --scale (what one search carries);
nothing else should run meanwhile.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import machine

SCRIPTS = (
    "training_speed",
    "separable_speed",
    "cost_model",
    "agent_speed",
    "stack_overhead",
    "resume_time",
    "candidates_per_hour",
    "estimates",
)
SCALE = ("async_search", "million_candidates", "flow_limits")
"""What one search carries: docs/scale.md."""


def main() -> int:
    """Print every result, write <machine>.md; 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", action="store_true", help="what one search carries, instead")
    parser.add_argument("--quick", action="store_true", help="see that they work; writes nothing")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    sections = []
    folder, scripts = ("scale", SCALE) if options.scale else ("speed", SCRIPTS)
    for script in scripts:
        command = ["-m", f"benchmarks.{folder}.{script}", *(["--quick"] if options.quick else [])]
        print(f"$ python {' '.join(command)}", flush=True)
        output = ""
        with subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                output += line
        if process.returncode:
            print(
                f"{script} ended with status {process.returncode}: nothing was kept",
                file=sys.stderr,
            )
            return 1
        sections.append(f"## {script}\n\n`python {' '.join(command)}`\n\n```\n{output}```\n")
    if not options.quick:
        file_name = re.sub(r"[^A-Za-z0-9]+", "-", machine.name()).strip("-") + ".md"
        if options.scale:
            file_name = f"scale-{file_name}"
        options.results.mkdir(parents=True, exist_ok=True)
        head = f"# {machine.name()}\n\n{time.strftime('%Y-%m-%d')}, {commit()}\n"
        (options.results / file_name).write_text("\n".join([head, *sections]), encoding="utf-8")
        print(f"written to {options.results / file_name}")
    return 0


def commit() -> str:
    """The commit measured."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    found = subprocess.run(git, capture_output=True, text=True)
    return f"commit {found.stdout.strip()}" if found.returncode == 0 else "no commit"


if __name__ == "__main__":
    sys.exit(main())
