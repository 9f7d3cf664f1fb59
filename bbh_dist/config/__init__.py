"""What a run is: typed experiments and search spaces, read from YAML with one-line errors."""

from bbh_dist.config.errors import ConfigError, DataError, Mistake
from bbh_dist.config.experiment import EarlyStop, Evaluation, Experiment, Optimizer, Parallel
from bbh_dist.config.load import load_experiment, load_space, override, to_yaml
from bbh_dist.config.measures import MEASURES, Measure
from bbh_dist.config.methods import (
    Anneal,
    BbbMethod,
    BbhMethod,
    DropoutMethod,
    Generator,
    MapMethod,
    MethodConfig,
    SemiImplicit,
)
from bbh_dist.config.space import Final, Objective, Parameter, Sampler, Scheduler, SearchSpace

__all__ = [
    "MEASURES",
    "Anneal",
    "BbbMethod",
    "BbhMethod",
    "ConfigError",
    "DataError",
    "DropoutMethod",
    "EarlyStop",
    "Evaluation",
    "Experiment",
    "Final",
    "Generator",
    "MapMethod",
    "Measure",
    "MethodConfig",
    "Mistake",
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
    "override",
    "to_yaml",
]
