from bbh_dist.sharding.workers import Workers as Workers
