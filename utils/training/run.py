"""A training run: epochs, evaluation, saving, stopping and going on."""

import math
import os
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from networks.init import zero_init_residual

from ..checkpoints import Checkpoint
from ..checkpoints.checkpoint import AVERAGE
from ..checkpoints.formats import save_atomically
from ..config import Config
from ..data.classes import shown_names
from ..data.loader import Loader
from ..data.seed import choose_seed, seed_all
from ..errors import UsageError
from ..processes.dist import Dist
from ..processes.signals import Stopped, StopRequest
from .board import BEST as BEST_ACC1
from .compiling import warm_up
from .engine import DTYPES, Learner, Precision, train_steps
from .evaluation import accuracy_line, evaluate_with_progress
from .finetuning import freeze
from .folder import BEST, LATEST, NOTHING, PREVIOUS, Found, changed_options, settings_beside
from .header import Origin, header
from .log import Progress, RunLog, epoch_line
from .metrics import Totals
from .optim import MovingAverage, load_optimizer, make_optimizer, optimizer_state
from .pace import Pace
from .profiling import step_profiler
from .samples import Samples, SpreadSample
from .schedule import lr_at, scaling_hint
from .state import DataFacts, State, checked, facts_of

# what must be the same for a run to go on within an epoch
WITHIN_EPOCH = ("seed", "batch_size", "images", "checksum", "decoder")
GOES_ON = "the same command with --resume auto goes on"


class Run:
    """A training, begun or gone on with as `config` says, and all that its checkpoints hold.

    data: what is known of its images. found: the checkpoint to go on from, as the first process
    found it. goes_on: what it says of going on when it is stopped. The state is public: epoch,
    step (of the epoch, done), best_acc1 (percent, of what is kept as the best; -inf before there
    is one), totals and seconds (of the epoch so far). Raises UsageError where the network can't be
    built, the checkpoint is of another one, or stands within an epoch of other batches.
    """

    def __init__(
        self,
        config: Config,
        dist: Dist,
        data: DataFacts,
        found: Found = NOTHING,
        goes_on: str = GOES_ON,
    ):
        self.config, self.dist, self.data, self.goes_on = config, dist, data, goes_on
        checkpoint, notes = found
        said = checked(checkpoint) if checkpoint else {}
        if checkpoint:
            checkpoint.check_is(config.network)
        seed = config.machine.seed
        self.seed = dist.from_main(lambda: choose_seed(seed, said))
        seed_all(self.seed, deterministic=seed is not None)
        self.model = config.network.build()
        if config.zero_init_residual and not zero_init_residual(self.model):
            arch = config.network.arch
            raise UsageError(f"--zero-init-residual: no residual branch of {arch} ends in a norm")
        if config.weights and not checkpoint:
            notes = notes + Checkpoint(config.weights).start(self.model, data.classes)
        dist.place(self.model)
        self.learner = self._new_learner()

        self.epoch = self.step = 0
        self.best_acc1, self.seconds = -math.inf, 0.0
        self.totals = Totals.zero(dist.device)
        self.unsaved: OSError | None = None
        self.latest_is_whole = True
        self.saved_at = time.monotonic()
        dist.check_same(self.facts)
        if checkpoint:
            self._go_on(checkpoint, said)
            notes = notes + [f"resumed     {checkpoint.path}, after {self.where}"]
        settings = config.options | asdict(config.network)
        settings |= {"images": data.images, "seed": self.seed}
        # an earlier version did not say the seed that it drew
        earlier = settings_beside(checkpoint) | {"seed": said.get("seed")} if checkpoint else {}
        self.origin = Origin.now(changed_options(earlier, settings))
        self.notes = notes + self.origin.changes
        settings["starts"] = [*earlier.get("starts", []), asdict(self.origin)]
        where = config.folder, not dist.is_main, self.epoch
        self.log = RunLog(*where, settings, self.seen, config.machine.logger)
        names = shown_names(data.classes, config.network.num_classes)
        self.samples = Samples(self.log, names)

    def _new_learner(self) -> Learner:
        optim, machine = self.config.optim, self.config.machine
        freeze(self.model, optim.freeze)
        return Learner(
            self.model,
            make_optimizer(self.model, optim),
            optim,
            Precision(self.dist.device.type, DTYPES[machine.amp]),
            self.dist,
            None if optim.ema is None else MovingAverage(self.model, optim.ema),
            machine.print_freq,
            record=machine.record,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What its checkpoints say of it besides its state, as plain values."""
        optim = self.config.optim
        batch_size = self.dist.batch_size(self.config.data.batch_size) * optim.accumulate
        facts = facts_of(self.config, self.data)
        return facts | {"seed": self.seed, "batch_size": batch_size}

    @property
    def where(self) -> str:
        """What is done of the run, as a person counts."""
        return f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"epoch {self.epoch}"

    @property
    def seen(self) -> int:
        """How many training images were seen; an epoch that is done counts as all of them."""
        images = self.data.images
        return self.epoch * images + min(self.step * self.facts["batch_size"], images)

    def path(self, name: str) -> str:
        return os.path.join(self.config.folder, name)

    def _go_on(self, checkpoint: Checkpoint, said: Mapping[str, Any]) -> None:
        """Take over the state that the checkpoint `said`; the optimizer keeps its own settings."""
        state, learner = State.of(said), self.learner
        if checkpoint.classes != self.data.classes:
            raise checkpoint.refusal("was trained on other class folders")
        for name in WITHIN_EPOCH if state.step else ():
            if said.get(name, self.facts[name]) != self.facts[name]:
                raise checkpoint.refusal(
                    f"stands within epoch {state.epoch + 1} with {name} {said[name]}, "
                    f"this run has {self.facts[name]}; go on with the same"
                )
        checkpoint.load_into(self.model)
        load_optimizer(learner.optimizer, state.optimizer, checkpoint.path)
        if learner.average:
            # one that begins here begins with these weights
            average = checkpoint.average if AVERAGE in said else checkpoint
            average.load_into(learner.average.module)
            learner.average.n_averaged.fill_(state.ema_updates)
        if learner.scaler.is_enabled() and state.scaler:  # empty after another --amp
            learner.scaler.load_state_dict(state.scaler)
        torch.set_rng_state(state.rng)
        if state.cuda_rng is not None and self.dist.device.type == "cuda":
            torch.cuda.set_rng_state(state.cuda_rng, self.dist.device)
        self.epoch, self.step = state.epoch, state.step
        self.best_acc1, self.seconds = state.best_acc1, state.seconds
        if self.dist.is_main:
            self.totals.load(state.counters)
        self.latest_is_whole = checkpoint.path == self.path(LATEST)

    def _state(self, totals: Totals) -> State:
        learner, on_gpu = self.learner, self.dist.device.type == "cuda"
        return State(
            epoch=self.epoch,
            step=self.step,
            best_acc1=self.best_acc1,
            seconds=self.seconds,
            counters=totals.counters(),
            optimizer=optimizer_state(learner.optimizer),
            scaler=learner.scaler.state_dict(),
            rng=torch.get_rng_state(),
            cuda_rng=torch.cuda.get_rng_state(self.dist.device) if on_gpu else None,
            ema_updates=int(learner.average.n_averaged) if learner.average else 0,
        )

    def save(self, acc1: float | None = None) -> None:
        """Write the state to the run folder. A failure is a warning: the run is worth more.

        acc1: validation accuracy, where it is that of this state; the best is also kept apart.
        Every process must call it, at the same step.
        """
        totals = Totals(self.dist.sum(self.totals.sums))
        self.saved_at = time.monotonic()
        if not self.dist.is_main:
            return
        state = self._state(totals)
        content = {**self.facts, "state_dict": self.model.state_dict()}
        if self.learner.average:
            content[AVERAGE] = self.learner.average.module.state_dict()
        try:
            if acc1 is not None and acc1 > self.best_acc1:
                state = replace(state, best_acc1=acc1)
                save_atomically(content | state.content(), self.path(BEST))
                self.best_acc1 = acc1
            # a file that was cut off must not take the place of the one that replaced it
            kept = self.path(PREVIOUS) if self.latest_is_whole else None
            save_atomically(content | state.content(), self.path(LATEST), kept)
            self.unsaved, self.latest_is_whole = None, True
        except OSError as error:
            self.unsaved = error
            self.log.warn(f"can't save {self.path(LATEST)} ({error}); the previous one stays")

    def train(self, train: Loader, val: Loader, about: list[str]) -> None:
        """`steps`, all of them; signals are noted for this run alone."""
        if self.config.machine.compile:
            torch.compiler.reset()  # what earlier runs compiled would count against this one's
        stop = StopRequest(torch.distributed.is_torchelastic_launched())
        for _ in self.steps(train, val, about, stop):
            pass

    def steps(
        self, train: Loader, val: Loader, about: list[str], stop: StopRequest
    ) -> Iterator[None]:
        """Train up to the last epoch, evaluating and saving after each, or after as many as the
        machine's eval_every says, and after the last; then close the log. Yields after each step.

        about: lines on the images, for the log's header. Raises Stopped after SIGINT, SIGTERM
        or SIGUSR1 to any process, with the state saved; UsageError for a loss that is not finite,
        an image that can't be decoded, and a last save that failed.
        """
        self.train_loader = train
        self.val_loader = SpreadSample(val) if self.dist.is_main else val
        if self.dist.is_main:
            for begun in Path(self.config.folder).glob("*.pth.tar.tmp-*"):  # by a killed run
                begun.unlink(missing_ok=True)
        try:
            size = self.data.preparation.centre_crop
            self.log.lines(self.origin.lines)
            self.log.lines(header(self.model, self.config.network, self.dist, size))
            self.log.lines(about)
            self.log.lines([f"run folder  {self.config.folder}", *self.notes])
            self.log.lines(scaling_hint(self.config.optim, self.facts["batch_size"]))
            self._wrap()
            steps = self.config.machine.profile if self.dist.is_main else None
            profiling = step_profiler(steps, self.config.folder, self.dist.device, self.log.line)
            with stop as self.stop, profiling as self.profiler:
                if self.epoch >= self.config.optim.epochs:
                    asked = f"--epochs {self.config.optim.epochs} asks for no more"
                    self.log.line(f"done        {self.epoch} epochs, {asked}; a larger one goes on")
                while self.epoch < self.config.optim.epochs:
                    yield from self._one_epoch()
            if self.unsaved:
                raise UsageError(f"can't save {self.path(LATEST)}: {self.unsaved}")
            self.log.line(f"best Acc@1  {self.best_acc1:.3f}, {self.path(BEST)}")
        finally:
            self.log.close()

    def _wrap(self) -> None:
        """Wrap the network for its processes; compile it, where that is wanted."""
        machine = self.config.machine
        if machine.compile:
            self.model.compile(dynamic=False)
        self.learner.model = self.dist.wrap(self.model, machine.sync_bn)
        # of the modules that are there now: --sync-bn puts others in the place of norms
        self.learner.frozen = freeze(self.model, self.config.optim.freeze)
        if machine.compile:
            sizes = self.train_loader.batches.sizes, self.val_loader.batches.sizes
            seconds = warm_up(self.learner, *sizes, self.config.data.image_size)
            self.log.line(f"compiled    in {seconds:.1f} s, which no rate below contains")

    def _one_epoch(self) -> Iterator[None]:
        before, started = self.seconds, time.perf_counter()
        epochs = self.config.optim.epochs
        on_train = yield from self._train()
        if (self.epoch + 1) % self.config.machine.eval_every and self.epoch + 1 < epochs:
            return self._advance()
        title = f"Validation {self.epoch + 1}/{epochs}"
        results = {"val": self._evaluate(self.learner.model, title)}
        if self.learner.average:
            module = self.learner.average.module
            results["val_ema"] = self._evaluate(module, f"{title}, average")
        last = len(self.train_loader) - 1
        if not math.isfinite(results["val"]["loss"]):
            raise self._diverged(last)

        metrics = {"epoch": self.epoch, "lr": self._lr_at(last)}
        for split, means in {"train": on_train, **results}.items():
            metrics |= {f"{split}_{name}": means[name] for name in ("loss", "acc1", "acc5")}
        metrics["images_per_s"] = on_train["images"] / max(self.seconds, 1e-9)
        metrics["seconds"] = before + time.perf_counter() - started
        if self.learner.scaler.is_enabled():
            metrics["skipped_steps"] = on_train["skipped"]
        acc1 = list(results.values())[-1]["acc1"]
        self.log.metrics(metrics, self.seen)
        self.log.curves({BEST_ACC1: max(acc1, self.best_acc1)}, self.seen)
        self.log.line(epoch_line(metrics, epochs))
        classes = self.config.network.num_classes
        self.log.line(accuracy_line(results["val"], classes))
        if self.learner.average:
            self.log.line(f"{accuracy_line(results['val_ema'], classes)} (average)")
        if self.dist.is_main and self.epoch + 1 == epochs:
            average = self.learner.average
            judged = average.module if average else self.model
            self.samples.predictions(judged, self.learner.precision, self.val_loader, self.seen)
        self._advance()
        self.save(acc1)

    def _lr_at(self, step: int) -> float:
        return lr_at(self.config.optim, self.epoch, step, len(self.train_loader))

    def _train(self) -> Generator[None, None, dict[str, float]]:
        first_step, before, started = self.step, self.seconds, time.perf_counter()
        title = f"Epoch {self.epoch + 1}/{self.config.optim.epochs}"
        progress = self._progress(title, self.train_loader, first_step)
        pace = Pace(Totals(self.dist.sum(self.totals.sums)))
        self.train_loader.batches.start(self.epoch, first_step)
        with progress:
            batches = pace.timed(self.train_loader)
            if self.epoch == first_step == 0:
                batches = self.samples.first_of(batches, self.train_loader.normalise)
            steps = train_steps(self.learner, batches, self.totals, self._lr_at, first_step)
            try:
                for self.step in steps:
                    self.seconds = before + time.perf_counter() - started
                    self._after_step(progress, pace)
                    yield
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise UsageError(
                    "batch norm can't train on one image that became a single pixel: "
                    "a larger -b or --image-size is needed"
                ) from None
        whole = Totals(self.dist.sum(self.totals.sums))
        return whole.means() | {"skipped": whole.skipped()}

    def _after_step(self, progress: Progress, pace: Pace) -> None:
        """Say where the epoch is, when it is time to; stop, or save, where that is asked for."""
        if self.profiler:
            self.profiler.step()
        signum, save_due = self.dist.largest(self.stop.signum, self._save_due())
        if progress.advance(self.step) or signum or save_due:
            bad_batch = self.totals.first_bad_batch()
            if bad_batch is not None:
                raise self._diverged(bad_batch // self.config.optim.accumulate)
            whole = Totals(self.dist.sum(self.totals.sums))
            progress.show(self.step, whole.means())
            numbers = {"lr": self._lr_at(self.step - 1), **pace.look(whole)}
            self.log.curves({f"step/{name}": each for name, each in numbers.items()}, self.seen)
        if signum:
            raise self._stopped(signum)
        if save_due:
            self.save()

    def _progress(self, title: str, loader: Loader, first_step: int = 0) -> Progress:
        print_freq, classes = self.config.machine.print_freq, self.config.network.num_classes
        return Progress(self.log, title, loader.batches, print_freq, classes, first_step)

    def _evaluate(self, evaluated: nn.Module, title: str) -> dict[str, float]:
        def after_step(done: int) -> None:
            # beyond the common steps some processes have already finished
            if done <= self.val_loader.batches.common_steps:
                (signum,) = self.dist.largest(self.stop.signum)
                if signum:
                    raise self._stopped(signum)

        evaluated = self.dist.for_evaluation(evaluated)
        progress = self._progress(title, self.val_loader)
        precision = self.learner.precision
        return evaluate_with_progress(
            evaluated, self.val_loader, self.dist, precision, progress, after_step
        )

    def _advance(self) -> None:
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.totals.clear()

    def _save_due(self) -> bool:
        # the main process's clock decides for all
        minutes = self.config.machine.save_every_minutes
        if minutes is None or not self.dist.is_main:
            return False
        return time.monotonic() - self.saved_at > 60 * minutes

    def _diverged(self, bad_step: int) -> UsageError:
        latest = self.path(LATEST)
        kept = (
            f"the last good checkpoint is {latest}" if os.path.exists(latest) else "none was saved"
        )
        return UsageError(
            f"the loss is NaN or infinite since epoch {self.epoch + 1}, step {bad_step + 1} "
            f"(learning rate {self._lr_at(bad_step):g}); {kept}"
        )

    def _stopped(self, signum: int) -> Stopped:
        self.save()
        # launchers soon kill the others when one has left, and the main one may still be writing
        self.dist.wait()
        steps = f"step {self.step} of {len(self.train_loader)}"
        failed = f", which could not be saved: {self.unsaved}"
        kept = failed if self.unsaved else f"; {self.goes_on}"
        return Stopped(signum, f"stopped after epoch {self.epoch + 1}, {steps}{kept}")
