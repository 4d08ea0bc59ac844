"""A whole run, from an experiment and its folder to everything that a finished run leaves.

Invariant: called again on the same folder, it goes on from wherever the last call stopped.
"""

import contextlib
from typing import Any

from rich.console import Console

from cupola.config import text
from cupola.observe import machine, sinks
from cupola.observe.goodput import Cause, Ledger
from cupola.observe.progress import Progress
from cupola.train import corpus, report
from cupola.train.experiment import Experiment, Training
from cupola.train.folder import RunFolder, unwritable
from cupola.train.hooks import Display, Record, Speed
from cupola.train.interrupt import Interrupt
from cupola.train.loop import Trainer
from cupola.train.state import check_layout
from cupola.train.task import End, Outcome, Task, prepare

# A decoder's corpora stand above its experiment, and here the two meet; other kinds do so where their class stands.
prepare.register(Experiment, corpus.prepare)


def run(experiment: Training, folder: RunFolder, console: Console) -> dict[str, Any] | None:
    """Trains to the end of the budget, scores, and writes the summary and what else the task leaves.

    Returns:
        The summary; None when the run was interrupted, with everything saved to go on from.

    Raises:
        CupolaError: what the experiment asks cannot be done; what was saved before is whole.
    """

    def note(line: str) -> None:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    ledger = Ledger()
    try:
        note(f"run: {folder.path}")
        with folder:
            check_layout(experiment)
            with ledger.time(Cause.START):
                task = prepare(experiment, folder, note)
            # Only steps need a gentle end: whatever stands before and after them is done again.
            with Interrupt() as interrupt:
                outcome = _train(task, folder, console, interrupt, ledger)
            if outcome.end is End.BUDGET:
                summary = _finish(task, folder, outcome, ledger)
                note(f"time went to:\n{ledger.text()}")
                return summary
            note(f"stopped after step {outcome.step:,}")
    except KeyboardInterrupt:
        note("stopped at once")
    except OSError as error:
        raise unwritable(folder.path, error) from error
    note(f"everything is in {folder.path}; go on with: cupola train --resume {folder.path}")
    return None


def _train(task: Task, folder: RunFolder, console: Console, interrupt: Interrupt, ledger: Ledger) -> Outcome:
    experiment = task.experiment
    with Progress(experiment.name, console=console) as progress:
        with ledger.time(Cause.START):
            trainer, here = Trainer(task, folder, (), ledger), machine.measure()
        with contextlib.closing(trainer), contextlib.closing(sinks.JSONL(folder.metrics)) as lines:
            if (step := trainer.resume()) is not None:
                progress.note(f"going on from step {step:,}, {trainer.seconds:.1f} s into the run")
            # Not before what was saved fits it: a change that does not fit leaves the text as it was.
            folder.write(folder.config, text.show(experiment))
            lines.truncate_after(trainer.step)
            record = sinks.Sinks(lines, sinks.TensorBoard(folder.tensorboard, purge_step=trainer.step + 1))
            with contextlib.closing(record):
                shown, recorded = (Speed(here, experiment.unit) for _ in range(2))
                trainer.hooks = (Record(record, recorded), Display(progress, shown), *task.hooks(record))
                return trainer.run(interrupt)


def _finish(task: Task, folder: RunFolder, outcome: Outcome, ledger: Ledger) -> dict[str, Any]:
    with ledger.time(Cause.EVALUATE):
        score = outcome.evaluator.all(outcome.params)
        summary = report.summarize(task.experiment, outcome, score, machine.measure())
        summary = task.finish(folder, outcome, score, summary)
    folder.write_summary(summary)
    return summary
