"""How the audit was run, as names and values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnxfim.record.audit import Audit, GradientInfo, ModelInfo
from onnxfim.record.declared import Setting
from onnxfim.record.foreign_text import visible
from onnxfim.record.provider_option import ProviderOption
from onnxfim.record.running import MISSING_SHARDS, Run
from onnxfim.record.settings import SETTINGS, Settings
from onnxfim.report import words
from onnxfim.report.identity_words import identity_facts
from onnxfim.report.numbers import count, number, percent, seconds, short, size
from onnxfim.report.page.view import Fact, FactGroup
from onnxfim.report.served_words import hash_name, served_facts
from onnxfim.report.whereabouts import COUNTED, placement_lines

#: What differences are there for, where the values are no differences.
_OF_CHECK = {"gradient": " (of the cross-check)"}


def how_it_was_run(audit: Audit) -> tuple[FactGroup, ...]:
    """Model, data, run, settings and versions as groups of facts."""
    gradient = (_gradient_facts(audit.gradient),) if audit.gradient is not None else ()
    return (
        _identity_facts(audit), _model_facts(audit), _data_facts(audit), _run_facts(audit), _placement_facts(audit), *gradient,
        _settings_facts(audit), _version_facts(audit),
    )  # fmt: skip


def _identity_facts(audit: Audit) -> FactGroup:
    """Which report this is."""
    told = identity_facts(audit.identity)
    return FactGroup(
        "This report", tuple(Fact(name, value, code=name in ("Report id", "Command")) for name, value in told), on_cover=True
    )


def _shape(shape: Iterable[int | str | None]) -> str:
    return visible(" × ".join("?" if n is None else str(n) for n in shape))


def _model_facts(audit: Audit) -> FactGroup:
    model = audit.model
    facts = [
        *_whence(model),
        *_input(model),
        *_other_inputs(model),
        Fact("Output", f"{visible(model.output)}: {count(model.num_outputs, 'output')}" + _positions(model.positions)),
        *_axes(model),
        Fact("Read as", f"{model.output_kind}, {visible(model.read_from)}"),
    ]
    if model.rewritten:
        facts.append(Fact("Copy needed for", visible(model.rewritten)))
    return FactGroup("Model", tuple(facts))


def _whence(model: ModelInfo) -> tuple[Fact, ...]:
    """The file that was audited, or where a model was asked that is none."""
    known = Fact(hash_name(model), visible(model.sha256), code=True)
    if model.served is not None:
        named = ("Served at", "SHA-256 of its metadata")
        return (*(Fact(name, value, code=name in named) for name, value in served_facts(model.served)), known)
    return (
        Fact("File", visible(model.path), code=True),
        known,
        Fact("Size", size(model.bytes)),
        Fact("Producer", visible(model.producer) or "not stated"),
        Fact("Opset", "not stated" if model.opset is None else str(model.opset)),
    )


def _input(model: ModelInfo) -> tuple[Fact, ...]:
    """What the file takes, and the value inside it that it was audited from."""
    moved = [visible(i.name) for i in model.inputs if i.role == "perturbed"]
    name = f"{', '.join(moved)} as one vector" if len(moved) > 1 else visible(model.input)
    at, audited = model.at, f"{name}: {visible(model.input_dtype)}, {_shape(model.input_shape)}"
    if at is None:
        return (Fact("Input", audited),)
    return (
        Fact("Input", f"{visible(at.input)}: {visible(at.input_dtype)}, {_shape(at.input_shape)}"),
        Fact("Audited from", f"{audited}; before it: {visible(at.front)}"),
    )


def _other_inputs(model: ModelInfo) -> tuple[Fact, ...]:
    """What became of the file's other inputs."""
    own = model.input if model.at is None else model.at.input
    others = [i for i in model.inputs if i.name != own]
    return tuple(
        Fact(
            f"Input {i.role}",
            f"{visible(i.name)}: {visible(i.dtype)}, {_shape(i.shape) if i.shape else 'one value'}"
            + ("" if i.at is None else f", {'at ' if i.role == 'held' else ''}{visible(i.at)}"),
        )
        for i in others
    )


def _axes(model: ModelInfo) -> tuple[Fact, ...]:
    """Where the classes and the batch lie, of outputs that have more axes than these."""
    if model.axes_from is None or (model.positions == 1 and model.class_axis == 1):
        return ()
    return (Fact("Axes of the output", visible(model.axes_from)),)


def _positions(positions: int) -> str:
    return f" at {count(positions, 'position')}" if positions > 1 else ""


def _data_facts(audit: Audit) -> FactGroup:
    data = audit.data
    return FactGroup(
        "Data",
        (
            Fact("Source", visible(data.source), code=True),
            Fact("SHA-256", visible(data.sha256), code=True),
            Fact("Samples", f"{len(audit.samples):,} audited, {len(audit.skipped):,} skipped, {data.count:,} given"),
            Fact("Shape of one", _shape(data.shape)),
            Fact("Values", f"{number(data.input_min)} to {number(data.input_max)}, standard deviation {number(data.input_std)}"),
            Fact("Labels", "yes" if data.labels else "no"),
        ),
    )


def _run_facts(audit: Audit) -> FactGroup:
    run = audit.run
    lost = words.fallback(audit) is not None
    facts = [
        Fact("Provider asked for", visible(", ".join(run.providers_requested))),
        Fact("Provider obtained", visible(run.provider), "error" if lost else ""),
    ]
    if run.provider_reason:
        facts.append(Fact("Reason", visible(run.provider_reason), "error" if lost else ""))
    if run.provider_plugin:
        facts.append(Fact("Plug-in", visible(run.provider_plugin)))
    facts += _option_facts(run.provider_options)
    if run.provider_remedy:
        facts.append(Fact("What mends it", visible(run.provider_remedy)))
    facts += [
        Fact("Given to the session", visible(", ".join(run.providers_registered)) or "none"),
        *_available(run),
        Fact("Method", visible(run.method)),
        Fact("Step and scheme", f"{short(run.step)}, {visible(run.scheme)}{_OF_CHECK.get(run.method, '')}"),
        *_noise(audit),
        Fact("Temperature", number(run.temperature)),
        Fact("Seed", str(run.seed)),
        Fact("Forward passes", f"{run.evaluations:,}"),
        Fact("Time", seconds(run.seconds)),
        *(
            Fact(visible(name.replace("_", " ")).capitalize(), _clock(value))
            for name, value in sorted(run.times.items())
            if value is not None
        ),
        Fact("Finished", _finished(run), "error" if run.partial else ""),
    ]
    return FactGroup("Run", tuple(facts))


def _available(run: Run) -> tuple[Fact, ...]:
    """The providers that the installed ONNX Runtime has, whether asked for or not; none in files that do not say."""
    return (Fact("Providers of this build", visible(", ".join(run.providers_available))),) if run.providers_available else ()


def _option_facts(options: Sequence[ProviderOption]) -> Iterator[Fact]:
    """A row for each option that was asked for, and one for all defaults of a provider."""
    for option in options:
        if not option.ours:
            yield Fact(f"Option of {visible(option.provider)}", visible(_option(option)), "error" if option.taken is False else "")
    for provider in dict.fromkeys(o.provider for o in options if o.ours):
        told = "; ".join(_option(o) for o in options if o.ours and o.provider == provider)
        yield Fact(f"Set for {visible(provider)}", visible(told))


def _option(option: ProviderOption) -> str:
    """An option as it was set, and what the session says."""
    if option.taken is None:
        became = "the provider does not tell what it runs with"
    elif option.taken:
        became = "taken" if option.running in (None, option.value) else f"runs with {option.running}"
    else:
        became = "not taken" if option.running is None else f"runs with {option.running}"
    return f"{option.key}={option.value} ({became})"


def _finished(run: Run) -> str:
    if not run.partial:
        return "yes"
    if run.interrupted_by == MISSING_SHARDS:
        return "no, shards are missing"
    return "no, interrupted" if run.stopped is None else f"no: {visible(run.stopped)}"


def _placement_facts(audit: Audit) -> FactGroup:
    """Which nodes each provider was given."""
    unasked = {p.provider for p in audit.run.placement or () if p.computing and not p.asked}
    facts = [
        Fact(name.removesuffix("ExecutionProvider"), text, "error" if name in unasked else "")
        for name, text in placement_lines(audit)
    ]
    counted = (Fact("Counted", COUNTED),) if audit.run.placement else ()
    return FactGroup("Where its nodes ran", (*facts, *counted))


def _noise(audit: Audit) -> tuple[Fact, ...]:
    rows = audit.rows
    if rows is None:
        return ()
    largest = "" if rows.largest is None else f", of one output at most {short(rows.largest)}"
    return (Fact("The same row elsewhere", f"differs by {short(rows.floor)} (rms){largest}; outputs up to {short(rows.scale)}"),)


def _gradient_facts(gradient: GradientInfo) -> FactGroup:
    facts = [Fact("Used", "yes" if gradient.used else "no: the values come from forward passes")]
    if gradient.reason:
        facts.append(Fact("Reason", visible(gradient.reason)))
    if gradient.used:
        what = "a clip surrogate of the quantised file, not the file itself" if gradient.surrogate else "the graph of the file"
        facts.append(Fact("Differentiated", what, "error" if gradient.surrogate else ""))
    if gradient.provider:
        facts.append(Fact("Differentiated on", f"{visible(gradient.provider)}: {visible(gradient.provider_reason or '')}", "error"))
    for name, error in (("⟨u, Jv⟩ = ⟨Jᵀu, v⟩", gradient.adjoint_error), ("rules at their nodes", gradient.difference_error)):
        facts.append(Fact(name, "not tested" if error is None else f"relative error {number(error)}"))
    ratio = gradient.cross_check_ratio
    told = "" if ratio is None else f"; sketch of the file / gradient = {number(ratio)}"
    facts.append(
        Fact("Cross-checked", f"{count(gradient.cross_checked, 'sample')}{told}" if gradient.cross_checked else "no sample")
    )
    return FactGroup("Gradients", tuple(facts))


def _clock(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) else visible(str(value))


def _settings_facts(audit: Audit) -> FactGroup:
    shown = (s for s in SETTINGS if _has_row(s, audit.settings))
    return FactGroup("Settings", tuple(Fact(s.label, visible(_setting(s, audit.settings))) for s in shown))


def _has_row(setting: Setting, settings: Settings) -> bool:
    row = setting.facts.row
    return row == "always" or (row == "changed" and getattr(settings, setting.name) != setting.default)


def _setting(setting: Setting, settings: Settings) -> str:
    """The value of a setting, as its declaration says that it prints."""
    value, facts = getattr(settings, setting.name), setting.facts
    if value is None:
        return facts.unset or ("auto" if facts.auto else "none")
    return facts.prints.format(value=_value(value, setting), settings=settings)


def _value(value: object, setting: Setting) -> str:
    if isinstance(value, bool):
        return setting.facts.words[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return percent(value) if setting.facts.share else short(value)
    return ", ".join(_value(v, setting) for v in value) if isinstance(value, tuple) else str(value)


def _version_facts(audit: Audit) -> FactGroup:
    versions = tuple(Fact(visible(name), visible(str(version))) for name, version in sorted(audit.run.versions.items()))
    return FactGroup("Versions", (*versions, Fact("Platform", visible(audit.run.platform))))
