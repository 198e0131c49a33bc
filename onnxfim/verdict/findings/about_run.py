"""Checks of the run: the provider, what was skipped, whether it came to its end."""

from __future__ import annotations

import math

from onnxfim.errors import issue_tracker
from onnxfim.record.audit import Audit
from onnxfim.record.running import MISSING_SHARDS, QUERY_LIMIT, UNMEASURED, UNSHARDED
from onnxfim.verdict.findings.about_values import few_are_missing
from onnxfim.verdict.findings.check import Check

_CPU = "CPUExecutionProvider"
_TOLD = 4  # restarts


def _no_precision(audit: Audit) -> str | None:
    return None if audit.settings.precision is not None else "no precision was asked for"


def _fallback(audit: Audit) -> str | None:
    run = audit.run
    if not run.provider_missed:
        return None
    return (
        f"{', '.join(run.providers_requested)} was asked for and not obtained; the audit ran on {run.provider}. The reason: "
        f"{run.provider_reason}.{_remedy(audit)}"
    )


def _elsewhere(audit: Audit) -> str | None:
    """Compute nodes of providers that were not asked for, beside those of others that were."""
    placed = audit.run.placement or ()
    total, asked = sum(p.computing for p in placed), [p for p in placed if p.asked and p.computing]
    others = [p for p in placed if not p.asked and p.computing]
    if not asked or not others:
        return None
    told = "; ".join(f"{p.computing:,} to {p.provider} ({p.kinds(compute=True)})" for p in others)
    count, copies = sum(p.computing for p in others), sum(p.copies for p in placed)
    copied = f" {copies:,} more nodes copy between devices." if copies else ""
    return (
        f"{count:,} of {total:,} compute nodes ({count / total:.0%}), those that a sample's values flow through, went elsewhere than to "
        f"{' and '.join(p.provider for p in asked)}: {told}.{copied} The numbers are of that mixture and its rounding. If it is "
        "deployed so, name both providers; else use operators, types and an opset that the first takes, or a newer ONNX Runtime."
    )


def _elsewhere_named(audit: Audit) -> str | None:
    return _elsewhere(audit) if _named(audit) else None


def _elsewhere_auto(audit: Audit) -> str | None:
    return None if _named(audit) else _elsewhere(audit)


def _named(audit: Audit) -> bool:
    """Whether a provider was asked for by name."""
    return any(name.lower() != "auto" for name in audit.run.providers_requested)


def _unknown(audit: Audit) -> str | None:
    run = audit.run
    if run.placement is not None or run.provider_missed or run.provider in (_CPU, "callable", "served"):
        return None
    return (
        f"Where the nodes ran is not known: {run.provider} was registered, and ONNX Runtime did not tell which nodes it was given. "
        "Those that it did not take ran on another provider. Use ONNX Runtime 1.24 or later, which tells."
    )


def _stopped(audit: Audit) -> str | None:
    who = "provider" if audit.model.served is None else "server"
    return None if audit.run.stopped is None else f"The {who} failed during the audit. {audit.run.stopped}"


def _auto(audit: Audit) -> str | None:
    run = audit.run
    if run.provider_missed or not run.provider_reason:
        return None
    return f"The audit ran on {run.provider}, although an NVIDIA GPU is here. CUDA was not obtained: {run.provider_reason}.{_remedy(audit)}"


def _remedy(audit: Audit) -> str:
    return f" {audit.run.provider_remedy}" if audit.run.provider_remedy else ""


def _installation(audit: Audit) -> str | None:
    return audit.run.installation


def _lost_options(audit: Audit) -> str | None:
    lost = [o for o in audit.run.provider_options if o.taken is False and (o.running is not None or not o.ours)]
    if not lost:
        return None
    told = "; ".join(
        f"{o.key}={o.value} of {o.provider}, " + ("which did not take it" if o.running is None else f"which runs with {o.running}")
        for o in lost
    )
    return f"The audit did not run with {told}. Mend the option or drop it: it tells nothing about this run."


def _untold_options(audit: Audit) -> str | None:
    untold = [o for o in audit.run.provider_options if o.taken is None and not o.ours]
    if not untold:
        return None
    told = ", ".join(f"{o.key}={o.value} of {o.provider}" for o in untold)
    return (
        f"Whether {told} had an effect is not known: the provider does not tell what it runs with. It may pass over what it does not "
        "know; see that the option is spelled as its documentation says."
    )


def _tf32(audit: Audit) -> str | None:
    run = audit.run
    if run.tf32_doubt is None:
        return None
    return (
        f"TF32 may be on though it was not allowed: {run.tf32_doubt}. {run.provider} has no option for it. Set NVIDIA_TF32_OVERRIDE=0 "
        "before the process starts, or allow it with --tf32."
    )


def _partial(audit: Audit) -> str | None:
    if not audit.run.partial:
        return None
    if audit.run.interrupted_by == MISSING_SHARDS:
        holds = f"the audit holds {len(audit.samples):,} of {audit.wanted:,} samples"
        return f"Shards are missing: {holds}. Measure the others, and merge again."
    by = f" ({audit.run.interrupted_by})" if audit.run.interrupted_by else ""
    ended = f"was interrupted{by}" if audit.run.stopped is None else "ended early"
    with_more = ""
    if audit.run.interrupted_by == QUERY_LIMIT:
        ended, with_more = "ended by --max-queries", ": what was answered is kept in the cache, and no request of it is made again"
    return (
        f"The audit {ended}: it holds {len(audit.samples):,} of {audit.wanted:,} samples, those that were finished by then, "
        f"and not every check was made. Run it again to the end{with_more}."
    )


def _failed(audit: Audit) -> str | None:
    failed = audit.run.failed_stages
    if not failed:
        return None
    told = "; ".join(
        f"{f.stage} ({f.error}{f': {f.message}' if f.message else ''}{f'; at the node {f.node}' if f.node else ''})" for f in failed
    )
    one = len(failed) == 1
    if all(f.error == "RuntimeEnded" for f in failed):
        return (
            f"ONNX Runtime ended the process in {'a stage' if one else f'{len(failed)} stages'} of the audit, which {'was' if one else 'were'} "
            f"left out: {told}. What it would have found is missing; all else was measured. Use another provider (--provider cpu) or another "
            "ONNX Runtime, and report the crash to whoever makes it."
        )
    return (
        f"{'A stage' if one else f'{len(failed)} stages'} of the audit failed where nobody foresaw it, and what {'it' if one else 'they'} "
        f"would have found is missing; all else was measured: {told}. This is a defect of onnxfim: please report it {issue_tracker()}, "
        "with the traceback that -v prints."
    )


def _changed(audit: Audit) -> str | None:
    if not audit.run.model_changed:
        return None
    if audit.model.served is not None:
        return (
            f"{audit.model.name} answered otherwise at the end of the audit than at its beginning: other weights were served meanwhile, or "
            "not all that answer for it are alike. The figures may be of either, or of both. Audit it again when it stays as it is."
        )
    return (
        f"{audit.model.name} was written to, or another file put in its place, while it was audited. Weights of a large file are read from "
        "it when they are needed, so the figures may be of either file, or of both. Audit it again when it is written to the end."
    )


def _restarts(audit: Audit) -> str | None:
    restarts = audit.run.restarts
    if not restarts:
        return None
    told = "; ".join(
        f"it {r.ended}, stage {r.stage!r}{'' if r.sample is None else f', on sample {r.sample}'}: {r.then}"
        for r in restarts[:_TOLD]
    )
    more = f"; and {len(restarts) - _TOLD} more" if len(restarts) > _TOLD else ""
    times = "once" if len(restarts) == 1 else f"{len(restarts)} times"
    return (
        f"The process of ONNX Runtime was started again {times}: {told}{more}. The figures are of the process that came to its end, and "
        "its forward passes are those counted. A runtime that crashes here may crash where the model is deployed: report it to whoever "
        "makes the provider or the operator, or use another."
    )


def _skipped(audit: Audit) -> str | None:
    skipped = [
        s for s in audit.skipped if s.reason not in (UNMEASURED, UNSHARDED)
    ]  # what an early end left out is told of by itself
    if not skipped:
        return None
    were, are = ("s were", "are") if len(skipped) > 1 else (" was", "is")
    many = "" if few_are_missing(audit) else " What is left may be another kind of samples: mend the cause and audit again."
    return (
        f"{len(skipped)} sample{were} skipped and {are} not in any statistic; the first: sample {skipped[0].index}, "
        f"{skipped[0].reason}.{many}"
    )


def _cache_off(audit: Audit) -> str | None:
    trouble = audit.run.times.get("cache_trouble")
    if not trouble:
        return None
    return (
        f"The cache keeps nothing more: {trouble}. No value is touched by that; a run that is interrupted does not go on from here, and "
        "the next one measures anew. Make room, name another folder with --cache-dir, or do without by --no-cache."
    )


def _precision(audit: Audit) -> str | None:
    asked, group = audit.settings.precision, audit.aggregates.get("lambda_max")
    if asked is None or group is None or not group.mean.value:
        return None
    if group.mean.low is None or group.mean.high is None:
        return f"The mean has no interval that could be made narrow: {group.mean.method}. Audit more samples."
    half = (group.mean.high - group.mean.low) / 2 / group.mean.value
    if half <= asked:
        return None
    more = math.ceil(group.count * (half / asked) ** 2)
    return (
        f"The mean's 95 % interval has a half-width of {half:.1%}, {asked:.1%} was asked for. What is left is mostly the spread "
        f"between samples: about {more:,} samples would be needed."
    )


CHECKS = (
    Check("provider-fallback", "warning", "The provider asked for was not obtained", _fallback),
    Check("provider-option", "warning", "A provider option had no effect", _lost_options),
    Check("provider-option-untold", "note", "A provider does not tell its options", _untold_options),
    Check("tf32", "warning", "TF32 may be on", _tf32),
    Check("provider-auto", "warning", "A GPU is here and the audit did not run on it", _auto),
    Check("installed-twice", "warning", "Two builds are installed over one another", _installation),
    Check("provider-mixed", "warning", "A part of the model ran on another provider", _elsewhere_named),
    Check("provider-mixed-auto", "note", "A part of the model did not run on the faster provider", _elsewhere_auto),
    Check("placement-unknown", "note", "Which nodes the provider was given is not known", _unknown),
    Check("provider-failed", "error", "The provider failed during the audit", _stopped),
    Check("partial", "error", "The audit is partial", _partial),
    Check("stage-failed", "error", "A stage of the audit failed", _failed),
    Check("model-changed", "error", "The model's file changed during the audit", _changed),
    Check("isolated-restarts", "warning", "ONNX Runtime crashed and was started again", _restarts),
    Check("skipped-samples", "error", "Samples were skipped", _skipped, milder=few_are_missing),
    Check("cache-off", "note", "The cache is off", _cache_off),
    Check("precision-not-reached", "warning", "The precision asked for was not reached", _precision, _no_precision),
)
