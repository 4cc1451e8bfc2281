"""`python -m aidtrail.health [URL]`: what a container asks itself every few seconds, so it loads nothing but the standard library.

Exit 0 and what was answered if the service is well, 1 and one line if it is not.
"""

import sys
import urllib.error
import urllib.request

DEFAULT_URL = "http://127.0.0.1:9464/readyz"
TIMEOUT_SECONDS = 5.0


def main(url: str = DEFAULT_URL) -> int:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names is not for this
    try:
        with direct.open(url, timeout=TIMEOUT_SECONDS) as answer:
            said, code = answer.read(1000), 0
    except urllib.error.HTTPError as error:
        said, code = error.read(1000), 1
    except (OSError, ValueError) as error:
        said, code = f"{url}: {error}".encode(), 1
    sys.stdout.write(" ".join(said.decode(errors="replace").split()) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
