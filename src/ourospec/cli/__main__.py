"""`python -m ourospec.cli`: the command `ouro` where it is not on the path."""

import sys

from ourospec.cli import main

sys.exit(main())
