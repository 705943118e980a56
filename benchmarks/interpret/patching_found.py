"""Numbers and verdicts from what `patching` kept; no model is run.

    python -m benchmarks.interpret.patching_found NAME

Intervals: 95 %, over questions and words (`crossed`); both directions. A claim agrees if the whole interval is
beyond the number, disagrees if the whole interval is on the other side, else it is not shown.

1. Early MLPs at the identity carry nearly the whole effect: the first window of layers at the identity has at
   least .8 of the effect that it has at all tokens.
2. It fades with depth: the first window at the identity less the last one is above 0.
3. Early layers act indirectly: of the MLPs in the first third of the layers, the indirect part less the direct
   one is above 0. Late ones directly: of attention in the last third, the direct part less the indirect one is.
   A direct part is that of the last token; indirect is the effect at all tokens less the direct part.
4. It is a persona and not a word: at the identity, MLP 1 has more effect with the values of the persona's own
   prompt than with those of the word alone; and more for personas than for topics. (Both differences above 0.)
5. Few heads carry it: of the heads at the last token, the strongest twentieth on half of the questions has at
   least half of all positive effects on the other half (mean of both ways round).

Only pairs with a persona count, except where topics are named. Beside them: every kind by itself, and without
pairs that only echo the word (an answer is the beginning of the identity itself).
"""
