"""Lets `python -m fetcher` be the command `fetcher`."""

from fetcher.cli import main

if __name__ == "__main__":
    main()
