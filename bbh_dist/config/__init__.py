"""What a run is: typed experiments, search spaces and suites, read from YAML with one-line errors."""

from bbh_dist.config.errors import ConfigError, DataError, Mistake
from bbh_dist.config.evaluation import Attacks, Evaluation
from bbh_dist.config.experiment import EarlyStop, Experiment, Optimizer
from bbh_dist.config.load import load_experiment, load_space, override, plain, to_yaml
from bbh_dist.config.load_suite import load_suite
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
from bbh_dist.config.parallel import Parallel, WorkerRange
from bbh_dist.config.source import read_source
from bbh_dist.config.space import SEARCH_SEED, Final, Objective, Parameter, Sampler, Scheduler, SearchSpace
from bbh_dist.config.suite import (
    TRAIN_SECONDS,
    PlannedRow,
    Published,
    Suite,
    SuitePlan,
    TunedObjective,
    TunedSettings,
    run_name,
    tuned_settings,
)

__all__ = [
    "FINAL_METRICS",
    "MEASURES",
    "SEARCH_SEED",
    "TRAIN_SECONDS",
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
    "PlannedRow",
    "Published",
    "Sampler",
    "Scheduler",
    "SearchSpace",
    "SemiImplicit",
    "Suite",
    "SuitePlan",
    "TunedObjective",
    "TunedSettings",
    "WorkerRange",
    "load_experiment",
    "load_space",
    "load_suite",
    "measures_of",
    "override",
    "plain",
    "read_source",
    "run_name",
    "to_yaml",
    "tuned_settings",
]
