"""``python -m modelinscale.cli`` does what ``mis`` does."""

from modelinscale.cli import script

if __name__ == "__main__":
    script()
