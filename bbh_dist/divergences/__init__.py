"""KL(q || p) in nats, from weight samples; nothing here divides by the number of data."""

from bbh_dist.divergences.discriminator import Discriminator, pick
from bbh_dist.divergences.gaussian import factorised_gaussian_kl, gaussian_kl, gaussian_moment_kl, gaussian_samples
from bbh_dist.divergences.knn import knn_kl, knn_kl_of_distances, knn_marginal_kl, squared_distances
from bbh_dist.divergences.semi_implicit import semi_implicit_bound, semi_implicit_kl, semi_implicit_terms

__all__ = [
    "Discriminator",
    "factorised_gaussian_kl",
    "gaussian_kl",
    "gaussian_moment_kl",
    "gaussian_samples",
    "knn_kl",
    "knn_kl_of_distances",
    "knn_marginal_kl",
    "pick",
    "semi_implicit_bound",
    "semi_implicit_kl",
    "semi_implicit_terms",
    "squared_distances",
]
