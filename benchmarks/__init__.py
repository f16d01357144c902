"""Claims about speed, memory and quality, measured: always as a ratio against a peer or a physical limit in the same run."""
