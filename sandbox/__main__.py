"""``python -m sandbox demo [--json] [--socket-mode]``."""

import argparse
import logging
import sys

from sandbox.hosts import HostsError
from sandbox.narrator import NotSoError


def main() -> int:
    """Play the demo; the exit status is 0 only if everything was so."""
    parser = argparse.ArgumentParser(prog="python -m sandbox")
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="play the whole story on this machine")
    demo.add_argument("--json", action="store_true", help="a JSON object a step")
    demo.add_argument("--socket-mode", action="store_true", help="Slack over WebSockets instead of HTTP")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    from sandbox.demo import play
    from sandbox.serving import ServingError

    try:
        play(as_json=options.json, socket_mode=options.socket_mode)
    except (NotSoError, HostsError, ServingError, TimeoutError, FileNotFoundError) as error:
        print(f"demo: not so: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
