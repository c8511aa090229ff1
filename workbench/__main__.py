"""``python -m workbench COMMAND ...``: the commands without a project of their own."""

import sys

from workbench.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
