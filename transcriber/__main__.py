"""`python -m transcriber`."""

import sys

from transcriber.cli.main import main

sys.exit(main())
