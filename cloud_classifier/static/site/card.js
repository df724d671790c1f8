// An answer as a card: what is sure comes first, then what it means, then the rest.

import {el, svg} from './dom.js';

// A probability for people; never 100% or 0%.
export function percent(p) {
  if (p > 0.99) return '> 99%';
  return p < 0.01 ? '< 1%' : `${Math.round(100 * p)}%`;
}

let titles = {}; // what the labels are called
export const title = label => titles[label] ?? label;

// Call the model's labels by their names from now on.
export function nameLabels({labels}) {
  titles = Object.fromEntries(Object.entries(labels).map(([label, {title}]) => [label, title]));
}

const list = names => (names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`);
const sentence = text => text[0].toUpperCase() + text.slice(1);
const metres = (low, high) => (low === high ? `${low} m` : `${low}–${high} m`);

// What is sure, in a few words.
export function headline({verdict, label, backoff}) {
  if (verdict === 'not_a_sky') return 'This doesn’t look like a sky';
  if (verdict === 'confident') return title(label);
  return ['none', 'genus'].includes(backoff.depth) ? 'Not sure' : `Unsure: a ${backoff.name} cloud`;
}

// Why, or what it means, in a line or two.
export function meaning(answer, {labels, rules}) {
  const {verdict, label, probability, backoff, oodScore} = answer;
  if (verdict === 'not_a_sky')
    return (
      `The photo is unlike the skies that the model has learned from: it differs by ${oodScore.toFixed(2)}, and from ` +
      `${rules.ood_threshold.toFixed(2)} on it is not taken for one. ` +
      `If it is a sky all the same, ${title(label)} is nearest.`
    );
  if (verdict === 'confident')
    return labels[label].weather ?? 'Not one of the ten genera: it tells nothing of height or weather.';
  if (backoff.name && backoff.depth !== 'genus')
    return (
      `${percent(backoff.probability)} sure of the ${backoff.depth}, not of the genus. ` +
      `Most likely ${list(backoff.likely.map(title))}.`
    );
  const needed = rules.thresholds.genus;
  const why =
    needed == null ? 'This model’s answers are never sure enough.' : `A sure answer needs ${percent(needed)}.`;
  return `Most likely ${title(label)}, at ${percent(probability)}. ${why}`;
}

// The labels that the card tells facts of.
function subjects({verdict, label, backoff}) {
  if (verdict === 'not_a_sky') return [];
  if (verdict === 'confident') return [label];
  return backoff.depth === 'none' ? [] : backoff.likely;
}

// Level, cloud base and precipitation, as far as the labels have them: headings and values.
function factsOf(answer, {labels}) {
  const facts = subjects(answer)
    .map(label => labels[label])
    .filter(fact => fact.genus);
  if (!facts.length) return null;
  const low = Math.min(...facts.map(f => f.base[0]));
  const high = Math.max(...facts.map(f => f.base[1]));
  const one = name => [...new Set(facts.map(f => f[name]))];
  return {
    low,
    high,
    rows: [
      ['Level', list(one('level'))],
      ['Cloud base', metres(low, high)],
      ['Precipitation', list(one('precipitation'))],
    ],
  };
}

// A column of air, twelve kilometres of it, with the heights where the base may be.
function column({low, high}) {
  const y = m => 116 - (108 * Math.min(m, 12000)) / 12000;
  const top = y(high);
  const height = Math.max(y(low) - top, 5);
  return svg(
    'svg',
    {class: 'column', viewBox: '0 0 34 124', 'aria-hidden': 'true'},
    svg('rect', {class: 'air', x: 1, y: 1, width: 32, height: 122, rx: 12}),
    [2000, 6000].map(m => svg('line', {x1: 1, x2: 33, y1: y(m), y2: y(m)})),
    svg('rect', {class: 'base', x: 6, y: top, width: 22, height, rx: Math.min(8, height / 2)}),
  );
}

function bar({label, probability}) {
  const value = el('b');
  value.style.width = `${100 * probability}%`;
  return el(
    'li',
    {},
    el('span', {class: 'label'}, title(label)),
    el('i', {}, value),
    el('span', {class: 'share'}, percent(probability)),
  );
}

// How to tell the answer from what it is confused with: those that can't be ruled out first.
function cues(answer, {labels}) {
  const [first] = subjects(answer).length ? subjects(answer) : answer.verdict === 'unsure' ? [answer.label] : [];
  const others = Object.entries(labels[first]?.lookalikes ?? {});
  const place = name => {
    const i = answer.set.indexOf(name);
    return i < 0 ? Infinity : i;
  };
  return others
    .filter(([name]) => name !== first)
    .sort(([a], [b]) => place(a) - place(b) || 0)
    .slice(0, 2);
}

function cueList(answer, model) {
  const rows = cues(answer, model).map(([name, cue]) =>
    el('li', {}, el('strong', {}, `Or ${name}? `), sentence(cue) + '.'),
  );
  return rows.length ? el('div', {class: 'cues'}, el('h3', {}, 'Look again'), el('ul', {}, rows)) : null;
}

function factList(facts) {
  const rows = facts.rows.map(([heading, value]) =>
    el('div', {}, el('dt', {}, heading), el('dd', {}, sentence(value))),
  );
  return el('div', {class: 'facts'}, column(facts), el('dl', {}, rows));
}

const CHIPS = {confident: 'Sure', unsure: 'Not sure of the genus', not_a_sky: 'No sky, it seems'};

function open({verdict, set, label}) {
  const others = set.filter(name => name !== label);
  if (verdict === 'not_a_sky' || !others.length) return null;
  return el('p', {class: 'open'}, `Can’t be ruled out: ${others.map(title).join(', ')}.`);
}

// The picture that the answer is about, as small as the page needs it.
function pictureOf(bitmap, name) {
  const canvas = el('canvas', {
    width: bitmap.width,
    height: bitmap.height,
    role: 'img',
    'aria-label': `Photo: ${name}`,
  });
  canvas.getContext('bitmaprenderer').transferFromImageBitmap(bitmap);
  return canvas;
}

function body(answer, model) {
  const facts = factsOf(answer, model);
  const parts = [
    el(
      'p',
      {class: 'chip'},
      CHIPS[answer.verdict] + (answer.verdict === 'confident' ? ` · ${percent(answer.probability)}` : ''),
    ),
    el('h2', {}, headline(answer)),
    el('p', {class: 'meaning'}, meaning(answer, model)),
    facts && factList(facts),
    el('ol', {class: 'bars', 'aria-label': 'The three most likely'}, answer.top.map(bar)),
    open(answer),
    cueList(answer, model),
  ];
  return el('div', {class: 'body'}, parts);
}

// For those who script the page: what the card says, in attributes.
function attributesOf(name, answer) {
  return {
    class: 'answer',
    'data-name': name,
    'data-label': answer.label,
    'data-probability': answer.probability.toFixed(6),
    'data-verdict': answer.verdict,
    'data-set': JSON.stringify(answer.set),
    'data-depth': answer.backoff.depth,
    'data-answer': JSON.stringify(answer),
  };
}

export const answerCard = (name, answer, picture, model) =>
  el('article', {...attributesOf(name, answer), 'aria-label': name}, pictureOf(picture, name), body(answer, model));

export const errorCard = (name, {kind, reason}) =>
  el(
    'article',
    {class: 'answer', 'data-name': name, 'data-verdict': 'error', 'data-kind': kind, 'aria-label': name},
    el(
      'div',
      {class: 'body'},
      el('p', {class: 'chip'}, 'Can’t be used'),
      el('p', {class: 'meaning'}, `${name}: ${reason}`),
    ),
  );

export const waitingCard = name =>
  el(
    'article',
    {class: 'waiting', 'aria-label': name},
    el('div', {class: 'blank'}),
    el('div', {class: 'body'}, el('p', {class: 'chip'}, 'Looking …'), el('p', {class: 'meaning'}, name)),
  );
