"""Realistic audits without a model: numbers of the size and spread that digit classifiers give."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from onnxfim.auditing.summary import aggregate_of
from onnxfim.record.audit import (
    AttackSummary,
    Audit,
    Calibration,
    ClassRow,
    Correlation,
    DirectionPicture,
    GradientInfo,
    ModelInfo,
    Run,
    Thumbnail,
)
from onnxfim.record.audited_from import AuditedFrom, Position, in_units_of
from onnxfim.record.bound import Architecture, Bound, Factor, Share
from onnxfim.record.data_info import DataInfo
from onnxfim.record.decision import Aggregate, Aggregates, Finding, GateResult
from onnxfim.record.identity import Identity
from onnxfim.record.placed import Placed
from onnxfim.record.sample import Estimate, KLCurve, KLPoint, SampleResult, Skipped
from onnxfim.record.settings import Settings
from onnxfim.record.steps import Rung, StepChoice
from onnxfim.spectral import closed_forms
from onnxfim.spectral.reading import bound_of
from onnxfim.verdict import judge, parse_gate
from tests.support.guaranteed_audits import with_guarantees, with_hostile_guarantees

UNITS = "nats per squared model input unit"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}{% raw %}",
    "abc\u202egnp.exe\u2066",
    "javascript:alert(1)//' onload='x",
    "</style></title></svg><b>&lt;&#60;",
    "nul\x00bell\x07lone\udc80",
)
GLYPHS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)


IDENTITY = Identity(
    report_id="5d41c0aa91be7f0e2b6c8d3fa4179e60c2b1a0f9e8d7c6b5a493827160f5e4d3",
    date="2026-06-01T09:30:00Z",
    command=("onnxfim", "audit", "sample_models/digits_resnet.onnx", "--data", "sample_models/digits.npz"),
    title="Digits, release 1.4",
    note="Before the retraining.",
    meta=(("owner", "vision team"), ("ticket", "V-12")),
    host="bench-3",
    asked='{"data":"1b7d","id":1,"model":"9f2c","settings":{}}',
)


def make_audit(
    n: int = 200, *, labels: bool = True, seed: int = 0, num_classes: int = 10, scale: float = 1.0, exact: bool = False
) -> Audit:
    """An audit of n samples; ``scale`` multiplies lambda_max, so that extreme magnitudes can be had."""
    rng = np.random.default_rng(seed)
    raw = scale * np.exp(rng.normal(-3.2, 2.4, n))
    temperature = 1.84
    calibrated = 0.45 * scale * (raw / scale) ** 0.62 * np.exp(rng.normal(0, 0.15, n))
    truth = rng.integers(0, num_classes, n)
    wrong = rng.random(n) < 0.03
    predicted = np.where(wrong, (truth + 1 + rng.integers(0, max(1, num_classes - 1), n)) % num_classes, truth)
    samples = tuple(_sample(i, raw[i], calibrated[i], truth[i], predicted[i], labels, exact, rng, scale) for i in range(n))
    distances = np.array([s.boundary_distance.value for s in samples])
    aggregates = {"lambda_max": _aggregates(raw, UNITS), "boundary_distance": _aggregates(distances, "model input units (L2)")}
    if labels:
        aggregates["lambda_max_calibrated"] = _aggregates(calibrated, UNITS)
    accuracy = float((truth == predicted).mean())
    calibration = Calibration(accuracy, max(0.0, accuracy - 0.03), min(1.0, accuracy + 0.02), 0.988, temperature, 0.121, 0.094)
    if not labels:
        calibration = Calibration(None, None, None, 0.988, None, None, None, "no labels were given")
    passes = 101 * n
    return Audit(
        model=ModelInfo(
            path="sample_models/digits_resnet.onnx",
            name="digits_resnet",
            sha256="9f2c4e1ab07d5d3386e1b5a2c7f04d19e8830a6b5c2d91f7e4a3b8c6d5f0e172",
            bytes=312_448,
            producer="pytorch 2.5.1",
            opset=17,
            input="image",
            input_shape=("batch", 1, 8, 8),
            input_dtype="float32",
            output="logits",
            num_outputs=num_classes,
            positions=1,
            output_kind="logits",
            read_from="output 'logits': values are not normalised, last node is Gemm",
        ),
        data=DataInfo(
            source="sample_models/digits.npz",
            sha256="1b7d0c55aa2e49f6d1f8c1a3b7709e2f4c6d8e0a1b2c3d4e5f60718293a4b5c6",
            count=n,
            shape=(1, 8, 8),
            labels=labels,
            synthetic=False,
            class_names=tuple(str(k) for k in range(num_classes)),
            input_min=0.0,
            input_max=1.0,
            input_std=0.376,
        ),
        settings=Settings(),
        run=Run(
            provider="CPUExecutionProvider",
            providers_requested=("auto",),
            providers_registered=("CUDAExecutionProvider", "CPUExecutionProvider"),
            provider_reason="CUDAExecutionProvider: libcudart.so.12 was not found",
            method="exact" if exact else "sketch",
            step=1e-3,
            scheme="forward",
            temperature=temperature if labels else None,
            seed=0,
            evaluations=passes + 1_544,
            seconds=4.21,
            versions={"onnxfim": "0.1.0", "onnxruntime": "1.22.0", "onnx": "1.18.0", "numpy": "2.2.6", "python": "3.11.7"},
            platform="Linux x86_64",
            partial=False,
        ),
        step=make_step(),
        calibration=calibration,
        aggregates=aggregates,
        samples=samples,
        skipped=(),
        findings=(
            Finding(
                "overconfident",
                "warning",
                "The temperature is 1.84: the model is surer than it is right. Raw values of such models do not compare; "
                "compare the calibrated ones.",
            ),
            Finding("concentrated", "note", "Ten samples carry two thirds of the mean; 412 further directions were spent on them."),
        )
        if labels
        else (),
        verdict="measured",
        classes=_classes(truth if labels else predicted, truth, predicted, raw, calibrated, distances, labels, num_classes),
        thumbnails=tuple(_thumbnail(int(i), int(truth[i]), rng) for i in _extremes(calibrated if labels else raw)),
        units=UNITS,
        identity=IDENTITY,
    )


def _sample(i, raw, calibrated, truth, predicted, labels, exact, rng, scale):
    kind = "exact" if exact else "estimate"

    def sketch(value):
        value = float(value)
        ends = (value, value) if exact else (0.74 * value, 1.31 * value)
        return Estimate(value, *ends, kind, "jackknife", 101, plain=1.04 * value, cross_fit=0.96 * value)

    distance = float(0.42 * (calibrated / scale) ** -0.32 * np.exp(rng.normal(0, 0.25)))
    missing = Estimate(None, reason="no labels were given")
    return SampleResult(
        index=i,
        name=str(i),
        label=int(truth) if labels else None,
        prediction=int(predicted),
        confidence=float(1 - min(0.6, 0.3 * raw / scale)),
        lambda_max=sketch(raw),
        lambda_max_calibrated=sketch(calibrated) if labels else missing,
        trace=Estimate(float(1.6 * raw), float(1.3 * raw), float(1.9 * raw), kind, "sketch", 101),
        effective_rank=Estimate(1.6, kind=kind, method="trace over lambda_max"),
        boundary_distance=Estimate(distance, 0.9 * distance, 1.12 * distance, kind, "sketch", 101),
        logit_sensitivity=Estimate(4.1, 3.8, 4.5, kind, "sketch", 101),
        evaluations=101,
        directions=100,
    )


def _aggregates(values, units):
    def row(value, low, high):
        return Aggregate(float(value), float(low), float(high), 0.95 if len(values) >= 60 else 0.9, "bootstrap over samples")

    mean, error = values.mean(), 2 * values.std() / np.sqrt(len(values))
    median, p95, top = np.median(values), np.quantile(values, 0.95), values.max()
    typical = np.exp(np.log(values).mean())
    return Aggregates(
        row(mean, max(mean - error, mean / 3), mean + 1.2 * error),
        row(median, 0.78 * median, 1.3 * median),
        row(p95, 0.7 * p95, 1.5 * p95),
        row(top, 0.8 * top, 1.2 * top),
        len(values),
        units,
        row(typical, 0.8 * typical, 1.3 * typical),
    )


def _classes(by, truth, predicted, raw, calibrated, distances, labels, num_classes):
    rows = []
    for k in range(num_classes):
        m = by == k
        if m.any():
            accuracy = float((truth[m] == predicted[m]).mean()) if labels else None
            tail = float(calibrated[m].mean()) if labels else None
            rows.append(
                ClassRow(k, str(k), int(m.sum()), accuracy, 0.985, float(raw[m].mean()), tail, float(np.median(distances[m])))
            )
    return tuple(rows)


def _extremes(values):
    order = np.argsort(-values)
    return np.unique(np.concatenate([order[:6], order[-6:]]))


def _thumbnail(index, digit, rng, size=8):
    picture = np.zeros((size, size))
    for r, row in enumerate(GLYPHS[digit % 10].split()):
        picture[r, 1:6] = [float(c) for c in row]
    soft = picture + 0.3 * np.roll(picture, 1, 1) + rng.random((size, size)) * 0.15
    return Thumbnail(index, size, size, 1, tuple(int(v) for v in np.clip(255 * soft, 0, 255).ravel()))


def make_step(*, dithered: bool = False) -> StepChoice:
    """A ladder with a plateau, or one of a quantised file: zeros below, a hump, and the dithered curve through it."""
    steps = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    forward = [0.0, 0.0, 0.0, 31.2, 5.2, 1.66, 1.2] if dithered else [1.062, 1.014, 1.009, 1.031, 1.21, 1.63, 2.35]
    central = [0.0, 0.0, 0.0, 29.7, 4.9, 1.6, 1.2] if dithered else [1.094, 1.021, 1.005, 1.0, 0.99, 0.93, 0.71]
    cross = [None, None, None, 1.96, 1.72, 1.22, 1.11] if dithered else [None] * 7
    curve = tuple(
        Rung(r, r / 0.376, f, c, 0.4 if dithered else 0.004 * i, 1.0 if f == 0 else 0.0, x)
        for i, (r, f, c, x) in enumerate(zip(steps, forward, central, cross, strict=True))
    )
    return StepChoice(
        step=0.1 if dithered else 1e-3,
        scheme="dithered" if dithered else "forward",
        plateau=not dithered,
        given=False,
        input_std=0.376,
        noise_floor=2.3e-2 if dithered else 3.1e-7,
        repeat_noise=0.0,
        error=0.008,
        smallest_usable=3e-3 if dithered else 1e-4,
        dither=0.0075 if dithered else None,
        curve=curve,
        samples=tuple(range(8)),
        directions=16,
        evaluations=1_544,
    )


def with_nulls(audit: Audit, *, share: float = 1.0) -> Audit:
    """The audit of a file of which that share of the samples resolves nothing."""
    reason = "no direction changed any output at r = 0.001; the smallest usable step is 0.03"
    null = Estimate(None, reason=reason)
    many = round(share * len(audit.samples))
    gone = tuple(
        replace(s, lambda_max=null, lambda_max_calibrated=null, trace=null, effective_rank=null,
                boundary_distance=null, logit_sensitivity=null, unchanged=1.0)
        for s in audit.samples[:many]
    )  # fmt: skip
    none = Aggregate(None, None, None)
    aggregates = dict(audit.aggregates)
    if share == 1:
        aggregates = {k: Aggregates(none, none, none, none, 0, a.units) for k, a in aggregates.items()}
    finding = Finding(
        "unresolved", "error", f"{many} samples have no measurable slope at this step: a larger one is needed (--step 0.03)."
    )
    return replace(
        audit,
        samples=gone + audit.samples[many:],
        aggregates=aggregates,
        findings=(finding, *audit.findings),
        verdict="inconclusive",
        step=make_step(dithered=True),
    )


def with_tokens(audit: Audit, text: str = "embedding") -> Audit:
    """The audit as one of a file of tokens, audited at their embedding, which is called so."""
    front = f"Gather (node {text!r}) of the table {text!r} (50 rows) by {text!r}"
    at = AuditedFrom(text, "tokens", front, "unit of the embedding", text, "int64", ("N", 12), named=False)
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.full(12, 0.3), len(audit.directions))
    positions = [tuple(Position(int(t), float(p)) for t, p in zip(rng.integers(0, 50, 12), row, strict=True)) for row in shares]
    return replace(
        audit,
        model=replace(audit.model, at=at, input=text, input_shape=("N", 12, 32)),
        directions=tuple(replace(d, positions=p) for d, p in zip(audit.directions, positions, strict=True)),
        aggregates={name: replace(a, units=in_units_of(at, a.units)) for name, a in audit.aggregates.items()},
        attack=replace(audit.attack, units=in_units_of(at, audit.attack.units)),
        units=in_units_of(at, audit.units),
        thumbnails=(),
    )


def hostile(audit: Audit) -> Audit:
    """The audit with every foreign text replaced by markup, template code and direction marks."""
    every = " ".join(HOSTILE)
    samples = tuple(replace(s, name=HOSTILE[s.index % len(HOSTILE)]) for s in audit.samples)
    return replace(
        audit,
        model=replace(
            audit.model, path=every, name=every, producer=every, input=every, output=every, read_from=every, rewritten=every
        ),
        data=replace(audit.data, source=every, class_names=HOSTILE),
        run=replace(
            audit.run,
            provider=every,
            providers_requested=(every,),
            provider_reason=every,
            versions={every: every},
            platform=every,
            placement=(
                Placed(every, 3, {every: 2, HOSTILE[0]: 1}),
                Placed(HOSTILE[0], 1, {every: 1}, asked=False, compute={every: 1}),
            ),
            stopped=every,
            partial=True,
        ),
        calibration=replace(audit.calibration, reason=every),
        samples=samples,
        skipped=(Skipped(3, every),),
        findings=tuple(Finding(every, level, every) for level in ("error", "warning", "note")),
        classes=tuple(replace(c, name=HOSTILE[c.index % len(HOSTILE)]) for c in audit.classes),
        gates=(GateResult(every, every, ">", 1.0, 2.0, 1.5, None, "fail", every, every),),
        identity=Identity(every, every, (every, *HOSTILE), every, every, ((every, every), ("verdict", HOSTILE[0])), every, every),
        verdict="fail",
    )


def gated(audit: Audit) -> Audit:
    """The audit with gates of all three verdicts and a baseline that it does not meet."""
    baseline = make_audit(len(audit.samples), seed=7)
    gates = ("lambda_max.p95 > 1e9", "lambda_max_calibrated.mean > 1e-9", "lambda_max.max > 5", "findings.warning")
    return judge(audit, [parse_gate(g) for g in gates], baseline=baseline, max_regression=0.05)


def synthetic(audit: Audit) -> Audit:
    """The audit of random inputs, interrupted."""
    data = replace(audit.data, source="random", synthetic=True, count=10 * len(audit.samples))
    return replace(audit, data=data, run=replace(audit.run, partial=True), verdict="inconclusive")


def fallback(audit: Audit) -> Audit:
    """The audit for which CUDA was asked for and not obtained, with skipped samples."""
    placement = (Placed("CPUExecutionProvider", 21, {"Conv": 9, "Relu": 7, "Add": 3, "ReduceMean": 1, "Gemm": 1}, asked=False),)
    run = replace(audit.run, providers_requested=("cuda",), provider_missed=True, placement=placement)
    return replace(
        audit, run=run, skipped=(Skipped(17, "logits are not finite (3 of 10)"), Skipped(44, "the runtime failed: bad shape"))
    )


def mixed(audit: Audit) -> Audit:
    """The audit of a model of which CUDA left a part to the CPU, on purpose and otherwise."""
    cuda = Placed("CUDAExecutionProvider", 20, {"Conv": 10, "Relu": 8, "MemcpyToHost": 2}, compute={"Conv": 10, "Relu": 8})
    cpu = Placed("CPUExecutionProvider", 5, {"Gather": 3, "Shape": 1, "NonMaxSuppression": 1}, False, {"NonMaxSuppression": 1})
    run = replace(
        audit.run, provider="CUDAExecutionProvider", providers_requested=("cuda",), provider_reason=None, placement=(cuda, cpu)
    )
    return judge(replace(audit, run=run))


def make_curve(lam: float, bend: float, flips_at: float | None, ladder: np.ndarray) -> KLCurve:
    """A curve that follows ½λε² up to about ``bend`` and saturates beyond; a random direction does a thirtieth of it."""
    points = []
    for e in ladder:
        q = 0.5 * lam * e**2
        along, against = q * (1 + 0.4 * e / bend) / (1 + (e / bend) ** 2), q / (1 + (e / bend) ** 2.2)
        points.append(KLPoint(float(e), float(along), float(against), float(along / 30), float(q)))
    holds = None
    for p in points:
        if max(abs(p.along / p.quadratic - 1), abs(p.against / p.quadratic - 1)) > 0.1:
            break
        holds = p.epsilon
    flip = next((p.epsilon for p in points if flips_at is not None and p.epsilon >= flips_at), None)
    return KLCurve(tuple(points), holds, flip)


def with_flips(audit: Audit) -> Audit:
    """The audit with flip radii a little longer than the boundary distances; every seventh sample did not flip."""
    none = Estimate(
        None, kind="upper bound", evaluations=31, reason="no flip within the data's range, 0 to 1, tried: the Fisher direction"
    )
    distances = [s.boundary_distance.value or 1.0 for s in audit.samples]
    radii = [
        none
        if i % 7 == 6
        else Estimate(1.2 * d, None, 1.2 * d, "upper bound", "along the Fisher direction, within the data's range", 18)
        for i, d in enumerate(distances)
    ]
    samples = tuple(replace(s, flip_radius=r) for s, r in zip(audit.samples, radii, strict=True))
    return replace(
        audit, samples=samples, aggregates={**audit.aggregates, "flip_radius": aggregate_of(samples, "flip_radius", seed=0)}
    )


def with_replay(audit: Audit, *, replayed: int = 64, seed: int = 0, images: bool = True) -> Audit:
    """The audit with gradients used, KL curves on samples spread over the ranking, directions and an attack."""
    rng = np.random.default_rng(seed)
    calibrated = all(s.lambda_max_calibrated.value is not None for s in audit.samples)
    ranked = sorted(audit.samples, key=lambda s: (s.lambda_max_calibrated if calibrated else s.lambda_max).value)
    places = np.unique(np.linspace(0, len(ranked) - 1, min(replayed, len(ranked))).round().astype(int))
    chosen = {ranked[i].index for i in places}
    ladder = np.geomspace(1e-3, 10, 13) * float(np.median([s.boundary_distance.value for s in audit.samples]))

    def replay(s: SampleResult) -> SampleResult:
        distance, value = s.boundary_distance.value, s.lambda_max.value
        curve = make_curve(value, distance * rng.uniform(0.3, 2), distance * rng.uniform(0.9, 4), ladder)
        attack = Estimate(float(distance * rng.uniform(0.7, 1.3)), kind="upper bound", method="smallest successful norm")
        eigenvalues = (value, 0.3 * value, 0.05 * value)
        return replace(s, kl_curve=curve if s.index in chosen else None, attack_distance=attack, top_eigenvalues=eigenvalues)

    roles = {"worst": ranked[-1], "median": ranked[places[len(places) // 2]], "best": ranked[0]}
    return replace(
        audit,
        samples=tuple(replay(s) for s in audit.samples),
        gradient=GradientInfo(True, None, False, 3.1e-7, 2.2e-4, 4, 1.03),
        directions=tuple(_direction(role, s, images, rng) for role, s in roles.items()),
        attack=make_attack(len(audit.samples)),
        run=replace(audit.run, method="gradient"),
    )


def _direction(role, s, images, rng):
    after = s.prediction if role == "best" else (s.prediction + 3) % 10
    if not images:
        largest = tuple((int(i), float(v)) for i, v in zip(rng.choice(784, 24, replace=False), rng.normal(0, 0.1, 24), strict=True))
        return DirectionPicture(s.index, role, 0.5, s.prediction, after, None, None, None, largest)
    before = _thumbnail(s.index, s.prediction, rng)
    v = np.outer(np.sin(np.linspace(0, 7, 8)), np.cos(np.linspace(1, 5, 8))) * rng.uniform(0.5, 1, (8, 8))
    signed = Thumbnail(s.index, 8, 8, 1, tuple(int(x) for x in np.round(127.5 + 127 * v / np.abs(v).max()).ravel()))
    moved = np.clip(np.array(before.pixels) + 90 * v.ravel(), 0, 255)
    moved = Thumbnail(s.index, 8, 8, 1, tuple(int(x) for x in moved))
    return DirectionPicture(s.index, role, 0.5, s.prediction, after, before, signed, moved)


def make_attack(n: int, *, norm: str = "l2") -> AttackSummary:
    """An attack replay of n samples with the correlations that such models give, one of them without a value."""
    correlations = (
        Correlation("lambda_max", -0.41, -0.55, -0.25, n),
        Correlation("lambda_max_calibrated", -0.83, -0.88, -0.76, n),
        Correlation("boundary_distance", 0.94, 0.91, 0.96, n),
        Correlation("logit_sensitivity", 0.08, -0.12, 0.27, n),
        Correlation("confidence", -0.31, -0.47, -0.13, n),
        Correlation("trace", None, None, None, 0),
    )
    return AttackSummary(
        norm, 0.3, "model input units", n, 0.97, 0.42, 0.33, 0.52, 0.36, 2, 0.0, 1.0, 40, 3, 18_400, 6.2, correlations, False
    )


def with_bound(audit: Audit, *, layers: int = 9, available: bool = True) -> Audit:
    """The audit with a ResNet-like class and a bound of so many layers, far above what was measured."""
    factors, shares, total = [], [], 0.0
    for i in range(layers):
        gain = 0.2 + 0.5 * ((7 * i) % 5) / 4
        node = f"/stage{i // 3}/block{i % 3}/conv{i}/Conv"
        factors.append(Factor(node, "Conv", (16, 16, 3, 3), gain - 0.05, "Gram iteration on the padded grid, 12 steps", "linear"))
        factors.append(Factor(f"/stage{i // 3}/relu{i}", "Relu", (), 0.0, "slope at most 1", "activation"))
        total += gain
        shares.append(Share(f"/stage{i // 3}/block{i % 3}/Add", "Add", gain, total, 4))
    total -= 0.6
    shares.append(Share("/pool/GlobalAveragePool", "GlobalAveragePool", -0.6, total, 1))
    factors.append(
        Factor("/head/Gemm", "Gemm", (10, 64), 0.31, "largest singular value", "linear", rigorous=False, note="as a hint")
    )
    bound = Bound(
        available,
        "" if available else "node '/attn/MatMul': dot-product attention has no global Lipschitz constant",
        total if available else None,
        2 * total - 0.301 if available else None,
        tuple(factors),
        ("Inference mode: Dropout is the identity.",),
        tuple(shares),
    )
    evidence = (
        f"{layers} convolutions: '/stage0/block0/conv0/Conv' … '/stage2/block2/conv8/Conv'.",
        "3 sums of a value with what weight layers made of it (identity skip): '/stage0/Add' … '/stage2/Add'.",
    )
    own = bound.log10_fisher - 0.4 if available else None
    return replace(
        audit,
        samples=tuple(replace(s, log10_fisher_bound=None if own is None else bound_of(own)) for s in audit.samples),
        architecture=Architecture("resnet", evidence),
        bound=bound,
        closed_forms=closed_forms(bound),
    )


def hostile_replay() -> Audit:
    """All that the replay and the bound can say, with every foreign text replaced."""
    every = " ".join(HOSTILE)
    bounded = with_bound(hostile(with_replay(make_audit(30))), available=False)
    bound = replace(
        bounded.bound,
        reason=every,
        factors=(Factor(every, every, (1,), 0.1, every, every, note=every),),
        shares=(Share(every, every, 0.1, 0.1, 1), Share(every, every, -0.1, 0.0, 1)),
        assumptions=(every,),
    )
    return replace(
        bounded,
        attack=replace(bounded.attack, units=every, correlations=(Correlation(every, 0.5, 0.4, 0.6, 30),)),
        bound=bound,
        architecture=Architecture("resnet", (every,)),
        gradient=GradientInfo(False, every, False, None, None, 0, None),
    )


#: Audits with a replay and an attack.
REPLAYS = {
    "replay": lambda: with_replay(make_audit()),
    "replay-coordinates": lambda: with_replay(make_audit(40, labels=False), images=False),
    "replay-one": lambda: with_replay(make_audit(1)),
    "replay-two": lambda: with_replay(make_audit(2)),
    "tokens": lambda: with_tokens(with_replay(make_audit(40), images=False)),
    "tokens-hostile": lambda: with_tokens(with_replay(make_audit(20), images=False), " ".join(HOSTILE)),
    "replay-tiny": lambda: with_replay(make_audit(50, scale=1e-30)),
}
#: Audits with a class of architecture and a bound.
BOUNDS = {
    "bound": lambda: with_bound(with_replay(make_audit())),
    "bound-deep": lambda: with_bound(make_audit(40), layers=260),
    "bound-unavailable": lambda: with_bound(make_audit(40), available=False),
    "bound-hostile": hostile_replay,
}

_VARIANTS = {
    "labelled": lambda: make_audit(),
    "unlabelled": lambda: make_audit(60, labels=False),
    "one": lambda: make_audit(1),
    "two": lambda: make_audit(2),
    "thousand": lambda: make_audit(1000),
    "tiny": lambda: make_audit(50, scale=1e-35),
    "huge": lambda: make_audit(50, scale=1e12),
    "exact": lambda: make_audit(40, exact=True),
    "nulls": lambda: with_nulls(make_audit(30)),
    "some-nulls": lambda: with_nulls(make_audit(100), share=0.3),
    "synthetic": lambda: synthetic(make_audit(40, labels=False)),
    "fallback": lambda: fallback(make_audit(100)),
    "mixed": lambda: mixed(make_audit(40)),
    "gated": lambda: gated(make_audit(100)),
    "hostile": lambda: hostile(fallback(make_audit(30))),
    "flips": lambda: with_flips(with_replay(make_audit(100))),
    "guarantees": lambda: with_guarantees(with_flips(make_audit(40)), bad=1),
    "guarantees-few": lambda: with_guarantees(make_audit(3, labels=False)),
    "guarantees-many": lambda: with_guarantees(with_flips(make_audit(250)), gap=1e6),
    "guarantees-hostile": lambda: hostile(with_hostile_guarantees(make_audit(30), " ".join(HOSTILE))),
    **REPLAYS,
    **BOUNDS,
    "empty": lambda: replace(make_audit(2), samples=(), aggregates={}, classes=(), thumbnails=(), verdict="inconclusive"),
}
#: Every kind of audit by name; each is made once, for a record is frozen.
VARIANTS = {name: functools.cache(made) for name, made in _VARIANTS.items()}
