"""`aidtrail`, and `python -m aidtrail`: begins before the modules of the command line are read, so that Ctrl-C then is no stack trace."""

import sys


def main() -> None:
    try:
        from aidtrail import cli

        sys.exit(cli.run())
    except KeyboardInterrupt:
        sys.stderr.write("aidtrail: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
