"""``python -m motivation.plot RUN``."""

from motivation.plot.command import main

if __name__ == "__main__":
    raise SystemExit(main())
