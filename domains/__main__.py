"""The command line without an orchestrator: ``python -m domains``."""

import sys

import domains
from core.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(domains, orchestrate=None, doctor=None))
