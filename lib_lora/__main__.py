"""`python -m lib_lora …`."""

import sys

from lib_lora.cli import main

sys.exit(main(sys.argv[1:]))
