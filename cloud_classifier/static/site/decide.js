// From logits to an answer: `prediction.decide`, with the numbers and the groups of labels that the model's file gives.

const sum = values => values.reduce((a, b) => a + b, 0);

// Probabilities from logits over the temperature.
export function softmax(logits, temperature) {
  const top = Math.max(...logits);
  const e = Array.from(logits, z => Math.exp((z - top) / temperature));
  const all = sum(e);
  return e.map(v => v / all);
}

// Indices of the probabilities, the largest first; of equal ones the first comes first.
const ranked = probs => probs.map((_, i) => i).sort((a, b) => probs[b] - probs[a] || a - b);

function verdictOf(probability, {thresholds, ood_threshold}, oodScore) {
  if (oodScore !== null && ood_threshold !== null && oodScore >= ood_threshold) return 'not_a_sky';
  return thresholds.genus != null && probability >= thresholds.genus ? 'confident' : 'unsure';
}

// The labels that can't be ruled out; the most probable never is.
function conformalSet(probs, limit) {
  const top = Math.max(...probs);
  return ranked(probs).filter(i => 1 - probs[i] <= limit || probs[i] === top);
}

// The fewest members that hold nine tenths of the probability.
function likely(members, probability) {
  let held = 0;
  return members
    .filter(({probability: p}, i) => {
      const before = held;
      held += p;
      return i === 0 || before < 0.9 * probability;
    })
    .map(m => m.label);
}

// The first depth (genus, level, family) whose best answer is sure enough.
function backoff(probs, {classes, rules, groups}) {
  for (const [depth, list] of Object.entries(groups)) {
    const threshold = rules.thresholds[depth];
    if (threshold == null || !list.length) continue;
    const sums = list.map(({members}) => sum(members.map(i => probs[i])));
    const best = sums.indexOf(Math.max(...sums));
    if (sums[best] < threshold) continue;
    const members = list[best].members
      .map(i => ({label: classes[i], probability: probs[i]}))
      .sort((a, b) => b.probability - a.probability);
    return {depth, name: list[best].name, probability: sums[best], members, likely: likely(members, sums[best])};
  }
  return {depth: 'none', name: '', probability: 0, members: [], likely: []};
}

// What can be said of a photo: the most probable labels, the verdict, the set, the most specific answer that is sure.
export function decide(logits, oodScore, model, k = 3) {
  const {classes, rules, temperature} = model;
  const probs = softmax(logits, temperature);
  const order = ranked(probs);
  const top = order.slice(0, k).map(i => ({label: classes[i], probability: probs[i]}));
  const verdict = verdictOf(top[0].probability, rules, oodScore);
  const sky = verdict !== 'not_a_sky';
  return {
    ...top[0],
    top,
    verdict,
    oodScore,
    set: sky ? conformalSet(probs, rules.conformal).map(i => classes[i]) : [],
    backoff: sky ? backoff(probs, model) : {depth: 'none', name: '', probability: 0, members: [], likely: []},
  };
}
