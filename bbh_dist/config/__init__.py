"""What a run is: typed experiments and search spaces, read from YAML with one-line errors."""

from bbh_dist.config.errors import ConfigError, DataError, Mistake
from bbh_dist.config.evaluation import Attacks, Evaluation
from bbh_dist.config.experiment import EarlyStop, Experiment, Optimizer, Parallel
from bbh_dist.config.load import load_experiment, load_space, override, to_yaml
from bbh_dist.config.measures import FINAL_METRICS, MEASURES, Kind, Measure, measures_of
from bbh_dist.config.methods import (
    Anneal,
    BbbMethod,
    BbhMethod,
    Discriminator,
    DropoutMethod,
    EnsembleMethod,
    Generator,
    MapMethod,
    MethodConfig,
    MnfMethod,
    SemiImplicit,
)
from bbh_dist.config.space import Final, Objective, Parameter, Sampler, Scheduler, SearchSpace

__all__ = [
    "FINAL_METRICS",
    "MEASURES",
    "Anneal",
    "Attacks",
    "BbbMethod",
    "BbhMethod",
    "ConfigError",
    "DataError",
    "Discriminator",
    "DropoutMethod",
    "EarlyStop",
    "EnsembleMethod",
    "Evaluation",
    "Experiment",
    "Final",
    "Generator",
    "Kind",
    "MapMethod",
    "Measure",
    "MethodConfig",
    "Mistake",
    "MnfMethod",
    "Objective",
    "Optimizer",
    "Parallel",
    "Parameter",
    "Sampler",
    "Scheduler",
    "SearchSpace",
    "SemiImplicit",
    "load_experiment",
    "load_space",
    "measures_of",
    "override",
    "to_yaml",
]
