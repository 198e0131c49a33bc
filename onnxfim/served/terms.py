"""How a served model is asked: how much at once, how often, how patiently."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.errors import SettingsError

#: The variable of the environment that holds the token; no option does, for commands are seen by others.
TOKEN = "ONNXFIM_SERVED_TOKEN"
#: What stands for an execution provider where a model is asked over a wire.
SERVED = "served"


@dataclass(frozen=True)
class Reach:
    """How a served model is asked.

    Attributes:
        concurrency: Requests under way at a time.
        max_qps: Requests a second at most, those that are repeated among them; None sets no limit.
        max_queries: Requests in all, those that are repeated among them, after which the audit ends with what is measured.
        timeout: Seconds that a request may take, from the connection to the last byte.
        retries: How often a request that brought no answer is made again.
        ca_file: Certificates of the authorities that the server's is held against, as a PEM file; None for the system's.

    Raises:
        SettingsError: a value that cannot be.
    """

    concurrency: int = 4
    max_qps: float | None = None
    max_queries: int | None = None
    timeout: float = 60.0
    retries: int = 6
    ca_file: str | None = None

    def __post_init__(self) -> None:
        for name, good, wanted in (
            ("concurrency", 1 <= self.concurrency <= 256, "1 to 256 requests at a time"),
            ("max_qps", self.max_qps is None or self.max_qps > 0, "a positive number of requests a second"),
            ("max_queries", self.max_queries is None or self.max_queries >= 1, "a positive number of requests"),
            ("timeout", self.timeout > 0, "a positive number of seconds"),
            ("retries", 0 <= self.retries <= 100, "0 to 100 tries more"),
        ):
            if not good:
                raise SettingsError(f"{name}: {getattr(self, name)!r}, expected {wanted}. Give another.")
