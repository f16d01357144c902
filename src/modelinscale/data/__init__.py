"""Data: sources, cleaning, the lake, contracts, splits, loading. Everything works on partitions in bounded memory."""
