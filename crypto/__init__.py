"""What the aggregator may see: integers mod 2^b, masks, keys, secure sums."""
