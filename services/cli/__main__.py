"""`python -m services.cli` is `headsup`."""

from services.cli import main

if __name__ == "__main__":
    main()
