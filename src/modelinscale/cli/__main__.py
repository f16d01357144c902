"""``python -m modelinscale.cli`` does what ``mis`` does."""

from modelinscale.cli import main

if __name__ == "__main__":
    main()
