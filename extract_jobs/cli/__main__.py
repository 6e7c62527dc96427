"""``python -m extract_jobs.cli``, the same as ``extract-jobs``."""

import sys

from extract_jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
