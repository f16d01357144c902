"""Networks of parts: an encoder for each kind of column, a trunk, a head; how they learn; how they are drawn. Needs torch: import it inside functions."""
