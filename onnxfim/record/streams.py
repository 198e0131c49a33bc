"""Every stream of random numbers: the word that keeps it apart from the others of the same seed.

A generator is seeded by ``[seed, …]``, where the words beside the seed name what is drawn: the direction j of sample i is the j-th
draw of ``[seed, i]``, which has no word of its own. Changing a word changes every audit's numbers.
"""

from __future__ import annotations

#: Resampling of the samples for the statistics of one audit: ``[seed, word]``.
AGGREGATES = 0x61676772
#: Random starts and rounds of attacks, ``[seed, word]``; their correlations, ``[seed, word, 1]``; the random direction beside a
#: KL curve, ``[seed, sample, word]``.
REPLAY = 0x7265706C
#: Random directions along which a sample without a slope is moved: ``[seed, sample, word]``.
FLIPS = 0x666C6970
#: Start vectors of Lanczos iterations: ``[seed, sample, word]``; cotangents that tell the trace, ``[seed, sample, word, 1]``.
LANCZOS = 0x6C616E63
#: Cotangents and tangents of the self-test of derivatives: ``[seed, word]``.
SELF_TEST = 0x73656C66
#: Resampling of the samples that two audits share: ``[seed, word]``.
VERDICT = 0x76657264
#: Synthetic inputs: ``[seed, sample, word]``.
DATA = 0x64617461
#: Points beside the samples, which tell ties from equal values and give one-sided slopes: ``[seed, sample, word]``.
KINKS = 0x6B696E6B
#: Noise of smoothed classifiers, the same for every standard deviation: ``[seed, sample, word]``.
SMOOTHING = 0x736D6F6F
#: Noise under which predictions are to stay, the same at every sample: ``[seed, word, kind, chunk of rows]``.
NOISE = 0x6E6F6973
#: Points that another prediction is looked for at, for a verifier's control question: ``[seed, sample, word]``.
CONTROLS = 0x6374726C
#: Dither of a rounded file's inputs, apart from the directions of the same sample: ``[seed, sample, word]``.
DITHER = 1
