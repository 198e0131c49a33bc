"""Ray (Ray Core) as the home of a crew: an actor for each GPU or CPU; model and samples travel once to each machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnxfim
from onnxfim.auditing.meter import Report, of_one_stage
from onnxfim.data import Samples
from onnxfim.errors import ModelError, SettingsError, in_one_line
from onnxfim.fleet.crew import Crew, Crewed, WorkerAnswer
from onnxfim.fleet.grounding import planned_samples
from onnxfim.fleet.seat import Materials, Seat, heard, materials
from onnxfim.graph.load import ModelFile
from onnxfim.record.plan import Plan
from onnxfim.runtime.stopping import Stop

#: The address that stands for a cluster of this machine alone, which is started and ended with the run.
LOCAL = "local"
_CPU = "CPUExecutionProvider"
_KNOCK = 5.0  # seconds for a cluster to answer at all
_ASIDE = "aside"  # what a worker does beside the range that it measures
_LEAVE = 3.0  # seconds for workers to remove the model's files


def ray_measured(
    plan: Plan, model: ModelFile, samples: Samples, address: str, *, report: Report, stop: Stop, quiet: float = 300.0,
    share: float = 0.0,
) -> Crewed:  # fmt: skip
    """The samples of a plan, measured by a Ray cluster.

    Args:
        plan: The plan.
        model, samples: Those that were planned.
        address: Of the cluster's head, ``HOST:PORT``; ``auto`` for the one that this machine belongs to, or `LOCAL`.
        report: Told of the progress.
        stop: What asks it to end.
        quiet: Seconds after which a range is taken for hung.
        share: Share of the run that was done before.

    Raises:
        SettingsError: Ray is not installed, no cluster answers, or it has nothing to run on.
        OnnxFimError: as the workers.
    """
    run = os.urandom(16).hex()
    report(
        of_one_stage("starting Ray" if address == LOCAL else "reaching the cluster", 0, len(plan.audited), "samples", share, None)
    )
    with stop.unbroken(), connected(address) as ray:
        home = _Home(ray, materials(run, model, planned_samples(plan, samples)), plan)
        try:
            return Crew(home, plan, plan.audited, report=report, stop=stop, quiet=quiet, share=share).run()
        finally:
            home.close()


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster while the block runs; a connection that was there already is used, and stays.

    What Ray prints of machines that die goes nowhere meanwhile, not even into a report on stdout: the run tells it in a line of its
    own.

    Raises:
        SettingsError: Ray is not installed, or no cluster answers.
    """
    ray = _ray(alone=address == LOCAL)
    if ray.is_initialized():
        yield ray
        return
    _knock(address)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        _connect(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster; the handlers of signals stay as they were.

    Raises:
        SettingsError: none answers.
    """
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    local = {"include_dashboard": False} if address == LOCAL else {}
    try:
        # Messages of Ray's own go nowhere: what a user must know is told by this package, in one line.
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **local)
    except Exception as error:
        raise SettingsError(f"--ray {address}: no cluster answers ({in_one_line(error)}). {_START}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray takes SIGTERM for itself
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def require_ray(address: str) -> None:
    """Raise where Ray or its cluster is missing, before any work.

    Raises:
        SettingsError: which.
    """
    _end_of(address)
    _ray(alone=address == LOCAL)
    _knock(address)


_START = "Start one with `ray start --head`, or join one with `ray start --address=HOST:PORT`; --ray alone needs none."


def _ray(*, alone: bool) -> Any:
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        if alone:
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's switch for listening on loopback alone
        else:
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # of 40 s each, where what answers is no cluster; 20 otherwise
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--ray: Ray is not installed. pip install 'onnxfim[ray]', here and on every machine.") from error
    return ray


def _end_of(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None of one that has none.

    Raises:
        SettingsError: it is no address.
    """
    if address in (LOCAL, "auto"):
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in host:  # a client far away: Ray's drivers are machines of the cluster
        raise SettingsError(f"--ray {address}: HOST:PORT of a cluster's head was expected, or auto. Its port is 6379 by default.")
    return host.strip("[]"), int(port)


def _knock(address: str) -> None:
    """Raise where nothing listens at an address: Ray itself would try for minutes."""
    end = _end_of(address)
    if end is None:
        return
    try:
        socket.create_connection(end, timeout=_KNOCK).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise SettingsError(f"--ray {address}: nothing answers there ({in_one_line(error)}). {_START}") from error


class _Placed(Seat):
    """A seat that knows on which machine of the cluster it is."""

    def about(self) -> str:
        """What is installed here, and on which machine this is."""
        import json

        import ray

        return json.dumps({**heard(super().about()), "node": ray.get_runtime_context().get_node_id()})


class _Home:
    """The actors of a run.

    Args:
        ray: The module, connected.
        given: What every actor is given.
        plan: The plan.

    Raises:
        SettingsError: the cluster has nothing to run on.
    """

    def __init__(self, ray: Any, given: Materials, plan: Plan) -> None:
        self._ray, self._errors = ray, ray.exceptions
        self._gpus = plan.audit.run.provider != _CPU
        self._versions = dict(plan.audit.run.versions)
        if self.places() < 1:
            what = f"GPU (the plan is for {plan.audit.run.provider})" if self._gpus else "CPU"
            raise SettingsError(f"--ray: the cluster has no {what} to run on. Start its workers, or another cluster.")
        self._given, self._plan = ray.put(given), ray.put(plan.to_json())
        options = {"num_cpus": 1, "num_gpus": int(self._gpus), "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(concurrency_groups={_ASIDE: 1}, **options)(_Placed)
        self._actors: dict[int, Any] = {}
        self._started = 0
        self._waited: dict[Any, tuple[int, str]] = {}  # what is waited for: whose it is, and what it is
        self._nodes: dict[int, str] = {}

    def places(self) -> int:
        kind = "GPU" if self._gpus else "CPU"
        return sum(int(n["Resources"].get(kind, 0)) for n in self._ray.nodes() if n["Alive"])

    def start(self) -> int:
        self._started += 1
        worker = self._started
        self._actors[worker] = actor = self._actor.remote(self._given, None if self._gpus else 1)
        self._waited[actor.about.remote()] = worker, "about"
        return worker

    def measure(self, worker: Any, number: int, indices: Sequence[int]) -> None:
        self._waited[self._actors[worker].measure.remote(number, tuple(indices))] = worker, "measure"

    def answers(self, timeout: float) -> Iterable[WorkerAnswer]:
        waited = list(self._waited)
        if not waited:
            threading.Event().wait(timeout)
            return
        ready, _ = self._ray.wait(waited, num_returns=1, timeout=timeout)
        if ready and len(waited) > 1:
            ready, _ = self._ray.wait(waited, num_returns=len(waited), timeout=0)
        for ref in ready:
            if ref not in self._waited:  # of a worker that is gone by now
                continue
            worker, what = self._waited.pop(ref)
            found = self._answer(worker, ref)
            if found.text is None:
                self.end(worker)
            elif what == "about":
                refusal = self._greeted(worker, found.text)
                if refusal is None:
                    continue
                found = WorkerAnswer(worker, refusal)
            yield found

    def end(self, worker: Any) -> None:
        self._waited = {ref: told for ref, told in self._waited.items() if told[0] != worker}
        actor = self._actors.pop(worker, None)
        if actor is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)

    def close(self) -> None:
        """End all workers; the model's files are removed first, on each machine."""
        with contextlib.suppress(Exception):
            # All of them, so that none that is still opening the model writes its files again.
            greeted = [actor for worker, actor in self._actors.items() if worker in self._nodes]
            leaving = [actor.leave.options(concurrency_group=_ASIDE).remote() for actor in greeted]
            if leaving:
                self._ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE)
        for worker in tuple(self._actors):
            self.end(worker)

    def _greeted(self, worker: int, text: str) -> str | None:
        """Ask a worker that said what is installed there to open the model; a refusal where that does not fit."""
        import json

        about = heard(text)
        self._nodes[worker] = about["node"]
        here = {**self._versions, "onnxfim": onnxfim.__version__}
        there = {**about["versions"], "onnxfim": about["version"]}
        other = next((name for name in sorted(here) if here[name] != there.get(name)), None)
        if other is not None:
            told = f"{about['machine']}: has {other} {there.get(other, 'not installed')}, and {here[other]} is here"
            return json.dumps({"error": "ModelError", "text": f"--ray: {told}. Install the same versions on every machine."})
        self._waited[self._actors[worker].open.remote(self._plan)] = worker, "open"
        return None

    def _answer(self, worker: int, ref: Any) -> WorkerAnswer:
        """What a worker answered, or how it ended.

        Raises:
            ModelError: it cannot import onnxfim, or failed as nobody foresaw.
        """
        errors = self._errors
        try:
            return WorkerAnswer(worker, str(self._ray.get(ref)))
        except errors.ActorUnavailableError:
            return WorkerAnswer(worker, None, "was lost with its machine, which cannot be reached", machine=True)
        except errors.OutOfMemoryError:
            return WorkerAnswer(worker, None, "was killed for want of memory")
        except errors.RayActorError as error:
            return self._dead(worker, error)
        except (errors.NodeDiedError, errors.ObjectLostError, errors.OwnerDiedError):
            return WorkerAnswer(worker, None, "was lost with its machine", machine=True)
        except errors.RayTaskError as error:
            raise ModelError(f"--ray: a worker failed unexpectedly ({in_one_line(error.cause or error)}). Report it.") from error

    def _dead(self, worker: int, error: Exception) -> WorkerAnswer:
        text = str(error)
        node = self._nodes.get(worker)
        lost = "node has died" in text or "node was" in text or getattr(error, "preempted", False)
        if lost or (node is not None and not any(n["Alive"] for n in self._ray.nodes() if n["NodeID"] == node)):
            return WorkerAnswer(worker, None, "was lost with its machine", machine=True)
        if node is None and "ModuleNotFoundError" in text:
            raise ModelError(
                "--ray: a worker cannot import onnxfim. Install it, with the extra ray, on every machine of the cluster."
            )
        return WorkerAnswer(worker, None, "ended unexpectedly")


__all__ = ["LOCAL", "connected", "ray_measured", "require_ray"]
