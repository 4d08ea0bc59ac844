"""Hardware modifiers: functions from an experiment to the same experiment, made for a machine."""
