"""Ray Train runs and Ray Tune studies: the only folder that imports ray or optuna."""
