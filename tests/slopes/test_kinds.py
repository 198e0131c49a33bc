"""Scores against dense float64 Fisher matrices and, where p is saturated, against 120 decimal digits."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, log_softmax, logit, softmax

from onnxfim.graph.ends import Ending
from onnxfim.record.settings import OUTPUT_FAMILIES, OutputKind, Settings
from onnxfim.slopes.estimators import lambda_max_exact
from onnxfim.slopes.kinds import (
    KINDS,
    DetectionLogits,
    DetectionProbabilities,
    Embedding,
    Gaussian,
    Probabilities,
    SigmoidLogits,
    SigmoidProbabilities,
    SoftmaxLogits,
)
from onnxfim.slopes.kinds.softmax import softmax_scores
from tests.support.models import covariance, precise_lambda

H = 1e-6  # central differences of the smooth maps below: error h² of the third derivative and 1e-16/h of rounding


def case(K=6, d=15, P=1, seed=0, scale=1.0):
    rng = np.random.default_rng([seed, K, d, P])
    return rng.standard_normal((K, P)), scale * rng.standard_normal((K, P, d))


def ends(z, J, link=lambda z: z):
    """Outputs at both ends of a step h along every coordinate: (d, K, P) each, and the step's length."""
    moves = np.moveaxis(J, -1, 0) * H / 2
    return link(z + moves), link(z - moves), H


def fisher(Y):
    return Y.T @ Y


def dense(z, J, temperature=1.0, spread=lambda p: covariance(p), link=lambda z: softmax(z)):
    """``F = Σ_positions JᵀCJ / T²``, (d, d)."""
    return sum(
        J[:, q].T @ spread(link(z[:, q] / temperature)) @ J[:, q] / temperature**2 for q in range(z.shape[1])
    )  # fmt: skip


def fisher_of(reader, z, J, temperature=1.0, link=lambda z: z):
    """F from scores along all coordinates, (d, d)."""
    Y = reader.scores(link(z), *ends(z, J, link), temperature)
    return Y @ Y.T


TEMPERATURES = (0.3, 1.0, 4.0)
KINDS_OF = {
    "logits": (SoftmaxLogits(), lambda z: z, dense),
    "log-probabilities": (SoftmaxLogits(), lambda z: log_softmax(z, axis=-2), dense),
    "probabilities": (Probabilities(), lambda z: softmax(z, axis=-2), dense),
    "sigmoid": (SigmoidLogits(), lambda z: z, lambda z, J, T: dense(z, J, T, lambda p: np.diag(p * (1 - p)), expit)),
    "sigmoid probabilities": (SigmoidProbabilities(), expit, lambda z, J, T: dense(z, J, T, lambda p: np.diag(p * (1 - p)), expit)),
}


class TestFisher:
    @pytest.mark.parametrize("temperature", TEMPERATURES)
    @pytest.mark.parametrize("P", [1, 4])
    @pytest.mark.parametrize("kind", KINDS_OF)
    def test_scores_make_the_dense_matrix(self, kind, P, temperature):  # differences of 1e-6: 1e-8 of the scale
        reader, link, twin = KINDS_OF[kind]
        z, J = case(P=P)
        truth = twin(z, J, temperature)
        assert_allclose(fisher_of(reader, z, J, temperature, link), truth, atol=1e-7 * np.linalg.norm(truth, 2))

    @pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
    def test_gaussian_is_the_jacobian_alone(self, sigma):  # as above
        z, J = case()
        truth = J[:, 0].T @ J[:, 0] / sigma**2
        assert_allclose(fisher_of(Gaussian(sigma), z, J), truth, atol=1e-7 * np.linalg.norm(truth, 2))

    def test_two_classes_have_one_direction(self):  # float64
        z, J = case(K=2)
        p = softmax(z[:, 0])
        g = J[0, 0] - J[1, 0]
        Y = softmax_scores(softmax(z, axis=0), np.moveaxis(J, -1, 0))
        assert_allclose(Y @ Y.T, p[0] * p[1] * np.outer(g, g), atol=1e-13)

    def test_one_sigmoid_is_two_classes(self):  # differences of 1e-6
        z, J = case(K=1)
        two = np.concatenate([z, np.zeros_like(z)]), np.concatenate([J, np.zeros_like(J)])
        assert_allclose(fisher_of(SigmoidLogits(), z, J), fisher_of(SoftmaxLogits(), *two), atol=1e-8)


def exact_scores(z, D, temperature=1.0):
    return softmax_scores(softmax(z / temperature, axis=0), np.moveaxis(D, -1, 0), temperature)  # (d, K·P)


class TestInvariants:
    @pytest.mark.parametrize("constant", [-300.0, 1e-3, 5.0, 300.0])
    def test_a_constant_added_to_the_logits(self, constant):  # atol: rounding of z + 300 in float64
        z, J = case()
        assert_allclose(fisher_of(SoftmaxLogits(), z + constant, J), fisher_of(SoftmaxLogits(), z, J), atol=2e-6)

    def test_a_gradient_added_to_all_logits(self):  # float64
        z, J = case()
        same = J + np.random.default_rng(1).standard_normal(J.shape[-1])
        assert_allclose(fisher(exact_scores(z, same).T), fisher(exact_scores(z, J).T), atol=1e-12)

    def test_a_permutation_of_the_classes(self):  # float64 sums in another order
        z, J = case()
        order = np.random.default_rng(1).permutation(len(z))
        assert_allclose(fisher(exact_scores(z[order], J[order]).T), fisher(exact_scores(z, J).T), atol=1e-13)

    @pytest.mark.parametrize("a", [0.01, 3.0, 255.0])
    def test_units_of_the_input(self, a):  # float64: x → a x, W → W / a
        z, J = case()
        ours, theirs = (lambda_max_exact(exact_scores(z, W)).value for W in (J, J / a))
        assert_allclose(theirs, ours / a**2, rtol=1e-12)

    @pytest.mark.parametrize("K", [2, 3, 10])
    def test_rank_and_inequalities(self, K):  # slack: float64 rounding
        z, J = case(K=K, d=30, seed=K)
        p = softmax(z[:, 0])
        F = fisher(exact_scores(z, J).T)
        values = np.linalg.eigvalsh(F)
        top, trace = values[-1], values.sum()
        assert np.linalg.matrix_rank(F) == K - 1
        gradients = (np.diag(p) - np.outer(p, p)) @ J[:, 0]
        assert (np.linalg.norm(gradients, axis=1) ** 2 / p).max() <= top * (1 + 1e-12)
        assert top <= trace * (1 + 1e-12)
        assert trace <= (K - 1) * top * (1 + 1e-12)
        assert top <= (2 * p * (1 - p)).max() * np.linalg.norm(J[:, 0], 2) ** 2 * (1 + 1e-12)

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_temperature_is_a_division_of_the_logits(self, temperature):  # float64
        z, J = case()
        ours = exact_scores(z, J, temperature)
        assert_allclose(ours, exact_scores(z / temperature, J / temperature), atol=1e-13)

    def test_positions_add_up(self):  # float64
        z, J = case(P=5)
        parts = sum(fisher(exact_scores(z[:, [q]], J[:, [q]]).T) for q in range(5))
        assert_allclose(fisher(exact_scores(z, J).T), parts, atol=1e-12)


class TestSaturation:
    @pytest.mark.parametrize("gap", [0.0, 10.0, 40.0, 80.0, 300.0])  # λ from 1 to 1e-130
    @pytest.mark.parametrize("K", [2, 5])
    def test_scores_keep_their_digits(self, K, gap):  # rtol: float64 softmax of an argument of 300 loses 300 eps
        rng = np.random.default_rng([K, int(gap)])
        z, J = rng.standard_normal(K), rng.standard_normal((K, 6))
        z[K // 2] += gap
        truth = precise_lambda(z, J)
        Y = exact_scores(z[:, None], J[:, None, :])
        assert_allclose(lambda_max_exact(Y).value, truth, rtol=1e-10)
        if gap >= 80:
            assert truth < 1e-33

    @pytest.mark.parametrize("gap", [0.0, 30.0, 80.0, -80.0])
    def test_sigmoid_weights_keep_their_digits(self, gap):  # rtol: one difference of 1e-6 over logits of 80, 1e-16·80/1e-6
        z, J = np.array([[gap]]), np.full((1, 1, 1), 1.7)
        with mpmath.workdps(60):
            s = 1 / (1 + mpmath.exp(-mpmath.mpf(gap)))
            truth = float(s * (1 - s) * mpmath.mpf(1.7) ** 2)
        assert_allclose(fisher_of(SigmoidLogits(), z, J)[0, 0], truth, rtol=1e-7)


class TestReading:
    def test_underflowed_probabilities_stay_finite(self):
        p = np.array([[1.0], [0.0], [0.0]])
        reader = Probabilities()
        for temperature in TEMPERATURES:
            assert np.isfinite(reader.probabilities(p, temperature)).all()
            assert np.isfinite(reader.scores(p, p[None], p[None], 1e-3, temperature)).all()
        assert np.isfinite(reader.log_losses(p[None], np.array([1]), 1.0)).all()
        assert np.isfinite(SigmoidProbabilities().slopes(p[None], p[None], 1e-3)).all()

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_log_loss_is_that_of_its_definition(self, temperature):  # float64; probabilities through float32's smallest number
        z = np.random.default_rng(0).standard_normal((20, 4, 1))
        labels = np.arange(20) % 4
        truth = -log_softmax(z[..., 0] / temperature, axis=1)[np.arange(20), labels].mean()
        assert_allclose(SoftmaxLogits().log_losses(z, labels, temperature).mean(), truth, rtol=1e-12)
        assert_allclose(Probabilities().log_losses(softmax(z, axis=1), labels, temperature).mean(), truth, rtol=1e-12)
        s = expit(z[..., 0] / temperature)
        hit = np.arange(4) == labels[:, None]
        bernoulli = -np.where(hit, np.log(s), np.log1p(-s)).sum(axis=1).mean()
        assert_allclose(SigmoidLogits().log_losses(z, labels, temperature).mean(), bernoulli, rtol=1e-12)
        assert_allclose(SigmoidProbabilities().log_losses(expit(z), labels, temperature).mean(), bernoulli, rtol=1e-9)

    def test_one_sigmoid_decides_at_one_half(self):  # 0.5 is clipped nowhere; float64
        p = np.array([0.2, 0.5, 0.9]).reshape(3, 1, 1)
        for reader, outputs in ((SigmoidProbabilities(), p), (SigmoidLogits(), logit(p))):
            assert reader.predictions(outputs).tolist() == [0, 0, 1]
            assert_allclose(reader.confidences(outputs), [0.8, 0.5, 0.9])

    def test_saturated_sigmoids_are_told_apart(self):  # both probabilities are 1 in float64
        assert SigmoidLogits().predictions(np.array([[[40.0], [41.0]]])).tolist() == [1]

    def test_a_gaussian_has_no_classes(self):
        reader = Gaussian()
        assert not reader.has_classes
        with pytest.raises(NotImplementedError, match="no class probabilities"):
            reader.probabilities(np.zeros((1, 2, 1)))
        with pytest.raises(NotImplementedError, match="no class labels"):
            reader.log_losses(np.zeros((1, 2, 1)), np.zeros(1, int), 1.0)


class TestDetection:
    """Only boxes of which one score reaches the threshold have a part, with all their scores."""

    def dense(self, z, J, threshold):
        p = expit(z)
        chosen = p.max(axis=0) >= threshold
        return sum(J[:, q].T @ np.diag(p[:, q] * (1 - p[:, q])) @ J[:, q] for q in np.flatnonzero(chosen))

    @pytest.mark.parametrize(("reader", "link"), [(DetectionLogits, lambda z: z), (DetectionProbabilities, expit)])
    @pytest.mark.parametrize("threshold", [0.75, 0.8])
    def test_scores_make_the_dense_matrix(self, reader, link, threshold):  # differences of 1e-6
        z, J = case(K=3, P=12)
        truth = self.dense(z, J, threshold)
        assert np.linalg.norm(truth) < 0.99 * np.linalg.norm(self.dense(z, J, 0.0)), "the threshold chooses"
        got = fisher_of(reader(threshold), z, J, link=link)
        assert_allclose(got, truth, atol=1e-7 * np.linalg.norm(truth, 2))

    @pytest.mark.parametrize(("reader", "link"), [(DetectionLogits(0.5), lambda z: z), (DetectionProbabilities(0.5), expit)])
    def test_divergence_is_that_of_the_selected(self, reader, link):  # rtol: arithmetic in float64
        z, _ = case(K=2, P=4)
        moved = z + 0.1 * np.random.default_rng(1).standard_normal((3, *z.shape))
        p, q = expit(z), expit(moved)
        terms = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        truth = terms[:, :, p.max(axis=0) >= 0.5].sum(axis=(1, 2))
        assert_allclose(reader.divergence(link(z), link(moved)), truth, rtol=1e-6)

    def test_the_spread_is_of_the_selected(self):
        reader = DetectionLogits(0.5)
        assert reader.log10_spread(np.array([[1.0], [-0.1]])) == pytest.approx(np.log10(expit(0.1) * expit(-0.1)))
        assert reader.log10_spread(np.array([[-1.0], [-2.0]])) == -np.inf
        assert not reader.weights(np.array([[[-1.0], [-2.0]]])).any()

    def test_nothing_selected_is_doubted(self):
        assert "no box of the first samples" in DetectionLogits(0.9).doubt(np.zeros((2, 3, 4)))
        assert DetectionLogits(0.5).doubt(np.zeros((2, 3, 4))) is None


class TestEmbedding:
    def test_the_divergence_is_one_minus_the_cosine(self):  # float64
        z, u = (v / np.linalg.norm(v) for v in np.random.default_rng(0).standard_normal((2, 5)))
        assert_allclose(Embedding(0.5).divergence(z[:, None], u[None, :, None]), (1 - z @ u) / 0.25, rtol=1e-12)

    @pytest.mark.parametrize(("length", "rows", "found"), [(1.0, 1, False), (1.0, 2, True), (16.0, 2, False), (16.0, 3, True)])
    def test_rows_of_one_length_are_doubted_as_logits(self, length, rows, found):
        z = np.random.default_rng(0).standard_normal((rows, 6, 1))
        z *= length / np.linalg.norm(z, axis=1, keepdims=True)
        doubt = SoftmaxLogits.recognise(Ending(linear=True), z).doubt
        assert (doubt is not None and "--output-kind embedding" in doubt) == found

    @pytest.mark.parametrize("z", [np.ones((4, 3, 1)), np.zeros((4, 3, 1)), np.random.default_rng(0).standard_normal((4, 3, 1))])
    def test_other_rows_are_not(self, z):
        assert SoftmaxLogits.recognise(Ending(linear=True), z).doubt is None

    def test_what_is_not_of_length_1_is_doubted_as_an_embedding(self):
        assert "not of length 1" in Embedding().doubt(np.random.default_rng(0).standard_normal((4, 3, 1)))


class TestSpread:
    """The largest eigenvalue of C, in logarithms."""

    @pytest.mark.parametrize("gap", [0.0, 3.0, 40.0, 300.0])
    @pytest.mark.parametrize("kind", KINDS_OF)
    def test_it_bounds_the_dense_matrix(self, kind, gap):
        reader, link, _ = KINDS_OF[kind]
        z = case(K=5)[0]
        z[1] += gap
        outputs = link(z)
        p = reader.probabilities(outputs)[:, 0]
        C = covariance(p) if reader.family == "class probabilities" else np.diag(p * (1 - p))
        assert np.linalg.eigvalsh(C)[-1] <= 10 ** reader.log10_spread(outputs) * (1 + 1e-9) + 1e-16
        assert reader.log10_spread(outputs) <= reader.log10_largest_spread + 1e-12

    @pytest.mark.parametrize("gap", [0.0, 1.0, 30.0, 300.0, 1000.0])
    def test_two_classes_reach_it_whatever_their_probabilities(self, gap):  # rtol: one logarithm in float64
        with mpmath.workdps(500):
            p = 1 / (1 + mpmath.exp(-mpmath.mpf(gap)))
            softmaxes, sigmoid = (float(mpmath.log10(f * p * (1 - p))) for f in (2, 1))
        assert_allclose(SoftmaxLogits().log10_spread(np.array([[gap], [0.0]])), softmaxes, rtol=1e-12)
        for z in (gap, -gap):
            assert_allclose(SigmoidLogits().log10_spread(np.array([[z]])), sigmoid, rtol=1e-12)

    def test_one_class_cannot_move(self):
        assert SoftmaxLogits().log10_spread(np.array([[3.0]])) == -np.inf

    @pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
    def test_a_gaussian_has_the_same_everywhere(self, sigma):
        reader = Gaussian(sigma)
        assert reader.log10_spread(np.zeros((3, 1))) == reader.log10_largest_spread == pytest.approx(np.log10(1 / sigma**2))


class TestContest:
    @pytest.mark.parametrize("K", [1, 4])
    @pytest.mark.parametrize(
        ("logits", "probabilities", "link"),
        [(SigmoidLogits(), SigmoidProbabilities(), expit), (SoftmaxLogits(), Probabilities(), lambda z: softmax(z, axis=-2))],
    )
    def test_probabilities_contest_as_their_logits_do(self, logits, probabilities, link, K):  # float64
        z, D = case(K=K)[0], np.random.default_rng(3).standard_normal((7, K, 1))
        values, slopes = logits.contest(z, D)
        others, same = probabilities.contest(link(z), D)
        assert_allclose(others.max() - others, values.max() - values, atol=1e-12)
        assert_allclose(same, slopes)

    def test_one_sigmoid_stands_against_nothing(self):
        values, slopes = SigmoidLogits().contest(np.array([[2.0]]), np.ones((3, 1, 1)))
        assert values.tolist() == [2.0, 0.0]
        assert slopes.tolist() == [[1.0, 0.0]] * 3


class TestWeights:
    @pytest.mark.parametrize("temperature", TEMPERATURES)
    @pytest.mark.parametrize(
        ("reader", "fisher"), [(SigmoidLogits(), lambda p: p * (1 - p)), (Gaussian(2.0), lambda p: 0 * p + 0.25)]
    )
    def test_independent_outputs_have_a_diagonal(self, reader, fisher, temperature):  # float64
        z = np.random.default_rng(0).standard_normal((3, 4, 1))
        T = 1.0 if reader.no_temperature else temperature
        assert_allclose(reader.weights(z, T) ** 2, fisher(expit(z[..., 0] / T)) / T**2, rtol=1e-12)

    def test_a_softmax_has_none(self):
        assert SoftmaxLogits().weights(np.zeros((3, 4, 1))) is None


class TestRegistry:
    def test_every_published_name_has_a_reader_and_a_family(self):
        names = set(typing.get_args(OutputKind))
        assert {kind.name for kind in KINDS} == names == set(OUTPUT_FAMILIES)

    def test_identities_are_stable_and_tell_readers_apart(self):
        told = [kind.of(Settings(sigma=0.5)).identity for kind in KINDS]
        assert told == [
            "SigmoidProbabilities()", "SigmoidLogits()", "Probabilities()", "Gaussian(sigma=0.5)", "Embedding(sigma=0.5)",
            "DetectionProbabilities(threshold=0.25)", "DetectionLogits(threshold=0.25)", "SoftmaxLogits()",
        ]  # fmt: skip

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_read_before_an_activation_are_logits(self, kind):
        before = kind.of(Settings()).before_activation()
        assert kind.reads_logits == (before is None)
        if before is not None:
            assert before.reads_logits
            assert before.family == OUTPUT_FAMILIES[kind.name]
            assert kind.differentiated

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_reader_of_a_kind_without_an_activation_takes_its_outputs_as_they_are(self, kind):
        z = np.random.default_rng(0).standard_normal((2, 3, 1))
        if kind.reads_logits:
            assert kind.of(Settings()).logits(z) is z


PACKAGE = Path(__file__).parents[2] / "onnxfim"
ASKING = {
    "isinstance of a reader": r"isinstance\([^)]*\b(OutputReader|SoftmaxLogits|Probabilities|SigmoidLogits|SigmoidProbabilities|Gaussian|Embedding|Detection\w+)\b",
    "the type of a reader": r"\btype\((self\.)?(\w+\.)*(reader|kind)\)",
    "a comparison of output kinds": r"\b(output_kind|kind\.name|reader\.name)\s*(==|!=|in\b|not in\b)",
    "a comparison with an output kind": r"""(==|!=|\bin)\s*\(?["'](gaussian|probabilities|embedding|detection)["']""",
}
#: Checks of what was asked for, not of what an output is.
ALLOWED = {"record/settings.py": "a comparison of output kinds"}


class TestOthersAskNoType:
    """A kind is asked what it does; what it is, nobody needs to know."""

    @pytest.mark.parametrize("what", ASKING)
    def test_nobody_outside_asks(self, what):
        found = []
        for file in sorted(PACKAGE.rglob("*.py")):
            place = file.relative_to(PACKAGE).as_posix()
            if place.startswith("slopes/kinds/") or ALLOWED.get(place) == what:
                continue
            lines = file.read_text("utf-8").splitlines()
            found += [f"{place}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if re.search(ASKING[what], line)]
        assert found == []

    @pytest.mark.parametrize(
        ("what", "line"),
        [
            ("isinstance of a reader", "if isinstance(self.measurer.reader, SoftmaxLogits):"),
            ("the type of a reader", 'type(self.reader).__name__ in ("SoftmaxLogits",)'),
            ("a comparison of output kinds", 'if audit.model.output_kind in ("logits", "probabilities")'),
            ("a comparison with an output kind", 'if kind == "gaussian":'),
        ],
    )
    def test_a_question_would_be_found(self, what, line):
        assert re.search(ASKING[what], line)
