"""How fast it is: `python -m bbh_dist.speed step|shard|predict|search` measures, prints a table, draws a figure."""
