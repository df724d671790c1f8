// The model's card, which is written in a little Markdown, as a sheet: headings, lists, tables, bold, code and links.

import {el} from './dom.js';

const INLINE = /\*\*(.+?)\*\*|`(.+?)`|\[(.+?)\]\((.+?)\)/g;

function inline(text) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, bold, code, label] = match;
    nodes.push(text.slice(at, match.index), bold ? el('strong', {}, bold) : code ? el('code', {}, code) : label);
    at = match.index + whole.length;
  }
  return [...nodes, text.slice(at)];
}

const cells = line =>
  line
    .slice(1, line.lastIndexOf('|'))
    .split('|')
    .map(cell => cell.trim());

function table(lines) {
  const [head, , ...rows] = lines.map(cells);
  return el(
    'div',
    {class: 'wide', tabindex: 0, role: 'group', 'aria-label': 'Table'},
    el(
      'table',
      {},
      el(
        'thead',
        {},
        el(
          'tr',
          {},
          head.map(cell => el(cell ? 'th' : 'td', cell ? {scope: 'col'} : {}, inline(cell))),
        ),
      ),
      el(
        'tbody',
        {},
        rows.map(row =>
          el(
            'tr',
            {},
            row.map(cell => el('td', {}, inline(cell))),
          ),
        ),
      ),
    ),
  );
}

function block(lines) {
  const [first] = lines;
  if (first.startsWith('# ')) return null; // the sheet has a title of its own
  if (first.startsWith('## ')) return el('h3', {}, first.slice(3));
  if (first.startsWith('|')) return table(lines);
  if (!first.startsWith('- ')) return el('p', {}, inline(lines.join(' ')));
  const items = lines
    .join('\n')
    .split(/\n?^- /m)
    .filter(Boolean);
  return el(
    'ul',
    {},
    items.map(item => el('li', {}, inline(item.replace(/\s+/g, ' ')))),
  );
}

// The nodes of a card; other models' cards are lines of names and values.
export function cardNodes(text) {
  if (!text.startsWith('# ')) return [el('pre', {}, text)];
  return text
    .split(/\n\s*\n/)
    .map(part => block(part.trim().split('\n')))
    .filter(Boolean);
}
