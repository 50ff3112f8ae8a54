"""`mindgen doctor`: a line for everything that mindgen needs of this machine."""

import argparse
from pathlib import Path

from mindgen.cli.diagnosis import examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank_table", type=Path, metavar="FILE", help="check this one too")
    parser.add_argument("--server_ip", metavar="IP", help="which server of the rank table this machine is")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run(arguments: argparse.Namespace, started: float) -> int:
    """Prints the findings as they come; 1 if something fails."""
    failed = 0
    for finding in examine(arguments.rank_table, arguments.server_ip):
        advice = f" -> {finding.advice}" if finding.advice else ""
        print(f"{finding.verdict:<8} {finding.subject:<14} {finding.text}{advice}", flush=True)
        failed += finding.verdict == "fails"
    return 1 if failed else 0
