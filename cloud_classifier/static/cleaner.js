// What people see and press of a `Cleaner`. It shows what the kernel sends and sends back what was pressed; which photos
// there are, and what becomes of them, is decided in Python. All text goes into the page as text, never as markup.

const PAGE = 12; // photos in the strip
const THUMB = 240; // longer side of a photo in the strip, pixels
const LARGE = 1400; // of the photo that is judged
const BATCH = 4; // photos asked for at once: a decision waits for no more than these
const KEEP_LARGE = 40; // large photos kept; the oldest goes first
const PATIENCE = 15000; // milliseconds until the page says that the kernel does not answer
const DECISIONS = { keep: 'Keep', relabel: 'Relabel', ambiguous: 'Ambiguous', delete: 'Delete' };
const SIGNS = { keep: '✓', relabel: '→', ambiguous: '?', delete: '✕' };
const KEYS = [
  ['k', 'keep: the label is right'],
  ['r or Enter', 'relabel to the suggestion'],
  ['1 … 9, 0, letters', 'relabel to the label with that key'],
  ['n', 'relabel to a new label'],
  ['a', 'ambiguous: take it out, as no single label fits'],
  ['d', 'delete: take it out, as it is no photo for this dataset'],
  ['u', 'withdraw the decision on this photo, else the last one'],
  ['← → ↑ ↓', 'previous and next photo'],
  ['Page ↑ Page ↓', 'previous and next page'],
  ['z', 'enlarge the photo'],
  ['g', 'the ten genera'],
  ['?', 'these keys'],
];

/** An element with properties, `on…` handlers, attributes (`aria-…`, `data-…`, `role`) and children; text stays text. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-') || name === 'role') element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const percent = (p) => (p > 0.99 ? '> 99 %' : p < 0.01 ? '< 1 %' : `${Math.round(100 * p)} %`);
const count = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

/** Set a text only where it differs, so that screen readers are not told twice. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A select's options, in place, so that it keeps the focus. */
function setOptions(select, options, value) {
  if (!options.some(([key]) => key === value)) options = [...options, [value, value]]; // a class that is done
  const wanted = JSON.stringify(options);
  if (select.dataset.options !== wanted) {
    select.replaceChildren(...options.map(([key, text]) => h('option', { value: key, textContent: text })));
    select.dataset.options = wanted;
  }
  select.value = value;
}

/** Whether the page around an element is dark: a notebook has themes of its own, the system's are for pages of ours. */
function isDark(element, wholePage) {
  if (wholePage) return matchMedia('(prefers-color-scheme: dark)').matches;
  for (let around = element.parentElement; around; around = around.parentElement) {
    const [red, green, blue, alpha = 1] = (getComputedStyle(around).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    if (alpha > 0.5) return 0.3 * red + 0.6 * green + 0.1 * blue < 110;
  }
  return false;
}

/** Questions to the kernel, each with a number; says so when one stays without an answer. */
class Questions {
  constructor(model, onSilence) {
    Object.assign(this, { model, onSilence, open: new Map(), next: 1 });
  }

  ask(action, details = {}) {
    const id = this.next++;
    this.open.set(id, setTimeout(() => this.onSilence(true), PATIENCE));
    this.model.send({ do: action, id, ...details });
    return id;
  }

  answered(id) {
    clearTimeout(this.open.get(id));
    this.open.delete(id);
    if (!this.open.size) this.onSilence(false);
  }

  close() {
    for (const timer of this.open.values()) clearTimeout(timer);
  }
}

/** The photos that arrived, as addresses for `<img>`, or the reason why one can't be shown. */
class Photos {
  constructor() {
    this.found = new Map();
  }

  get(index, side) {
    return this.found.get(`${side} ${index}`);
  }

  put(index, side, buffer, reason) {
    const url = reason ? '' : URL.createObjectURL(new Blob([buffer], { type: 'image/jpeg' }));
    this.found.set(`${side} ${index}`, { url, reason });
    const large = [...this.found.keys()].filter((key) => key.startsWith(`${LARGE} `));
    for (const key of large.slice(0, Math.max(large.length - KEEP_LARGE, 0))) this.drop(key);
  }

  drop(key) {
    URL.revokeObjectURL(this.found.get(key).url);
    this.found.delete(key);
  }

  clear() {
    for (const key of [...this.found.keys()]) this.drop(key);
  }
}

class CleanerView {
  constructor(model, element) {
    Object.assign(this, { model, rows: new Map(), photos: new Photos(), past: [], focus: 0, waiting: null });
    this.wholePage = model.get('whole_page');
    this.questions = new Questions(model, (silent) => this.showSilence(silent));
    this.build();
    element.append(this.root);
    this.listen();
    this.onView();
    this.onStatus();
    this.onErrors();
  }

  /** The page that Voilà makes has margins and scrolling areas one in another; here one photo is to fill it. */
  takePage() {
    for (let around = this.root.parentElement; around; around = around.parentElement) {
      around.classList.add('cloud-cleaner-around');
    }
    this.root.focus({ preventScroll: true });
  }

  // ---------------------------------------------------------------- the page

  build() {
    const parts = [this.buildBar(), this.buildMessages(), this.buildDesk(), this.buildStrip(), this.buildDialogs()];
    this.root = h('section', {
      className: this.wholePage ? 'cloud-cleaner whole' : 'cloud-cleaner',
      tabIndex: 0,
      'aria-label': 'Clean labels',
      'data-lm-suppress-shortcuts': 'true', // JupyterLab would cut a cell at the second d
    }, ...parts.flat());
  }

  button(text, action, properties = {}, key = '') {
    const parts = [h('span', { textContent: text }), key && h('kbd', { textContent: key, 'aria-hidden': 'true' })];
    const button = h('button', { type: 'button', ...properties }, ...parts.filter(Boolean));
    button.addEventListener('click', (event) => {
      if (button.getAttribute('aria-disabled') === 'true') return;
      action();
      // After a click the keys are to work again; who came by the Tab key stays where they are.
      if (event.detail && !this.openDialog()) this.root.focus({ preventScroll: true });
    });
    return button;
  }

  select(name, change) {
    let clicked = false;
    const select = h('select', {
      onpointerdown: () => { clicked = true; },
      onkeydown: () => { clicked = false; },
      onchange: () => {
        change(select.value);
        if (clicked) this.root.focus({ preventScroll: true }); // or the next key would choose another entry
      },
    });
    return [select, h('label', {}, h('span', { textContent: name }), select)];
  }

  buildBar() {
    const choose = (name) => (value) => this.open({ [name]: value });
    const [kind, kindLabel] = this.select('List', choose('kind'));
    const [label, classLabel] = this.select('Class', choose('label'));
    const [part, partLabel] = this.select('Part', choose('part'));
    Object.assign(this, { kind, label, part, partLabel });
    this.decided = h('input', { type: 'checkbox', onchange: () => this.open({ decided: this.decided.checked }) });
    this.meter = h('progress', { max: 1, value: 0, 'aria-label': 'Decided photos' });
    this.progress = h('span', { className: 'count' });
    this.apply = this.button('Apply', () => this.askApply(), { className: 'primary' });
    this.undo = this.button('Undo', () => this.askUndo());
    return h('header', { className: 'bar' },
      h('div', { className: 'lists' }, kindLabel, classLabel, partLabel,
        h('label', { className: 'check' }, this.decided, h('span', { textContent: 'decided ones too' }))),
      h('div', { className: 'far' }, this.meter, this.progress),
      h('div', { className: 'tools' }, this.apply, this.undo,
        this.button('Genera', () => this.showGenera(), { 'aria-keyshortcuts': 'g' }, 'g'),
        this.button('Keys', () => this.keysDialog.showModal(), { 'aria-keyshortcuts': '?' }, '?')));
  }

  buildMessages() {
    this.errors = h('div', { className: 'errors', role: 'alert' });
    this.notice = h('p', { className: 'notice', role: 'status', hidden: true });
    this.hint = h('p', { className: 'hint', hidden: true });
    this.said = h('p', { className: 'said', role: 'status', hidden: true });
    return [this.errors, this.notice, this.hint, this.said];
  }

  buildDesk() {
    this.image = h('img', { alt: '', draggable: false });
    this.cant = h('p', { className: 'cant' });
    this.zoom = this.button('', () => this.enlarge(), { className: 'zoom', 'aria-label': 'Enlarge the photo' });
    this.zoom.replaceChildren(this.image, this.cant);
    this.caption = h('span');
    this.previous = this.button('‹', () => this.move(-1), { 'aria-label': 'Previous photo', className: 'turn' });
    this.next = this.button('›', () => this.move(1), { 'aria-label': 'Next photo', className: 'turn' });
    this.stage = h('figure', { className: 'stage' }, this.zoom, h('figcaption', {}, this.caption, this.previous, this.next));
    this.desk = h('div', { className: 'desk' }, this.stage, this.buildPanel());
    this.empty = h('p', { className: 'empty', hidden: true });
    return [this.desk, this.empty];
  }

  belief(className, name) {
    const parts = { name: h('dt', { textContent: name }), label: h('b'), p: h('span', { className: 'p' }), bar: h('i') };
    const line = h('div', { className }, parts.name, h('dd', {}, parts.label, parts.p, h('span', { className: 'meter' }, parts.bar)));
    return { line, ...parts };
  }

  buildPanel() {
    this.given = this.belief('given', 'Label');
    this.suggested = this.belief('suggested', 'Suggested');
    this.cue = h('p', { className: 'cue' });
    this.reasons = h('ul', { className: 'reasons' });
    this.decision = h('p', { className: 'decision', role: 'status' });
    this.withdrawButton = this.button('Withdraw', () => this.withdraw(), { className: 'withdraw', 'aria-keyshortcuts': 'u' }, 'u');
    this.others = h('div', { className: 'others', role: 'group', 'aria-label': 'Another label' });
    this.newButton = this.button('New label …', () => this.askLabel(), {}, 'n');
    return h('div', { className: 'panel' },
      h('div', { className: 'why' }, h('dl', {}, this.given.line, this.suggested.line), this.cue, this.reasons),
      h('div', { className: 'so' }, this.decision, this.withdrawButton),
      this.buildDecisions(), h('p', { className: 'head', textContent: 'Another label' }), this.others);
  }

  buildDecisions() {
    this.buttons = {
      relabel: this.button('Relabel', () => this.relabelToSuggestion(), { className: 'relabel', 'aria-keyshortcuts': 'r' }, 'r'),
      keep: this.button('Keep', () => this.decide('keep'), { className: 'keep', 'aria-keyshortcuts': 'k' }, 'k'),
      ambiguous: this.button('Ambiguous', () => this.decide('ambiguous'), { className: 'ambiguous', 'aria-keyshortcuts': 'a' }, 'a'),
      delete: this.button('Delete', () => this.decide('delete'), { className: 'delete', 'aria-keyshortcuts': 'd' }, 'd'),
    };
    return h('div', { className: 'decisions', role: 'group', 'aria-label': 'Decision' }, ...Object.values(this.buttons));
  }

  buildStrip() {
    const turn = (text, name, by) => this.button(text, () => this.move(by * PAGE, true), { 'aria-label': name, className: 'turn' });
    this.before = turn('‹', 'Previous page', -1);
    this.after = turn('›', 'Next page', 1);
    this.cards = Array.from({ length: PAGE }, (_, i) => this.buildCard(i));
    this.strip = h('ol', { className: 'strip' }, ...this.cards.map((card) => card.item));
    this.pages = h('nav', { className: 'pages', 'aria-label': 'Photos' }, this.before, this.strip, this.after);
    return this.pages;
  }

  buildCard(i) {
    const [image, sign, cant] = [h('img', { alt: '', draggable: false }), h('span', { className: 'sign' }), h('span', { className: 'cant' })];
    const button = this.button('', () => this.goTo(this.pageStart() + i), { className: 'card' });
    button.replaceChildren(image, cant, sign);
    return { item: h('li', {}, button), button, image, sign, cant };
  }

  dialog(title, ...children) {
    const close = this.button('Close', () => dialog.close(), { className: 'close' });
    const head = h('div', { className: 'top' }, h('h2', { textContent: title }), close);
    const dialog = h('dialog', { 'aria-label': title, tabIndex: -1 }, head, ...children);
    dialog.addEventListener('close', () => this.root.focus({ preventScroll: true }));
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close()); // beside it
    return dialog;
  }

  buildDialogs() {
    const keys = KEYS.map(([key, meaning]) => h('div', {}, h('dt', {}, h('kbd', { textContent: key })), h('dd', { textContent: meaning })));
    this.keysDialog = this.dialog('Keys', h('dl', { className: 'keys' }, ...keys));
    this.generaList = h('div', { className: 'genera' });
    this.generaDialog = this.dialog('The ten genera', this.generaList);
    this.large = h('img', { alt: '' });
    this.largeCaption = h('p');
    this.zoomDialog = this.dialog('Photo', this.large, this.largeCaption);
    this.zoomDialog.classList.add('photo');
    this.askText = h('div', { className: 'text' });
    this.askButtons = h('div', { className: 'choices' });
    this.askDialog = this.dialog('', this.askText, this.askButtons);
    this.askDialog.classList.add('ask'); // Cancel closes it
    return [this.keysDialog, this.generaDialog, this.zoomDialog, this.askDialog];
  }

  // ---------------------------------------------------------------- what comes from the kernel and from the person

  listen() {
    this.handlers = {
      'change:view': () => this.onView(),
      'change:status': () => this.onStatus(),
      'change:errors': () => this.onErrors(),
      'msg:custom': (message, buffers) => this.onMessage(message, buffers),
    };
    for (const [name, handler] of Object.entries(this.handlers)) this.model.on(name, handler);
    this.onKey = (event) => this.key(event);
    this.keysFrom = this.wholePage ? document : this.root;
    this.keysFrom.addEventListener('keydown', this.onKey);
    this.onTheme = () => this.setTheme();
    this.themes = new MutationObserver(this.onTheme);
    for (const node of [document.documentElement, document.body]) this.themes.observe(node, { attributes: true });
    this.scheme = matchMedia('(prefers-color-scheme: dark)');
    this.scheme.addEventListener('change', this.onTheme);
    this.size = new ResizeObserver(() => this.onShown());
    this.size.observe(this.root);
  }

  /** Only now is it in the page, with a width and a background around it. */
  onShown() {
    this.setTheme();
    if (this.wholePage && !this.shown) this.takePage();
    this.shown = true;
    this.show();
  }

  remove() {
    this.size.disconnect();
    for (const [name, handler] of Object.entries(this.handlers)) this.model.off(name, handler);
    this.keysFrom.removeEventListener('keydown', this.onKey);
    this.themes.disconnect();
    this.scheme.removeEventListener('change', this.onTheme);
    this.questions.close();
    this.photos.clear();
    this.root.remove();
  }

  setTheme() {
    const theme = isDark(this.root, this.wholePage) ? 'dark' : 'light';
    if (this.root.dataset.theme !== theme) this.root.dataset.theme = theme;
  }

  /** Another list, or the same one anew: what is known of the rows of the last one is void. */
  onView() {
    const view = this.model.get('view');
    if (view.version === this.version) return;
    this.rows.clear();
    this.photos.clear();
    Object.assign(this, { view, version: view.version, focus: view.focus ?? 0, waiting: null });
    this.keyOf = new Map(view.labels.map((label, i) => [label, view.keys[i]]));
    setOptions(this.kind, view.kinds, view.kind);
    setOptions(this.label, [['', 'all classes'], ...view.classes], view.label);
    setOptions(this.part, [['', 'all parts'], ...view.parts], view.part);
    this.partLabel.hidden = !view.parts.length && !view.part;
    this.decided.checked = view.decided;
    this.showLabels();
    this.show();
  }

  onStatus() {
    const { decided = 0, total = 0, pending = {}, undo = 0, notice = '' } = this.model.get('status');
    const waiting = Object.values(pending).reduce((sum, n) => sum + n, 0);
    Object.assign(this.meter, { max: Math.max(total, 1), value: decided });
    setText(this.progress, `${decided.toLocaleString('en')} of ${count(total, 'photo')} decided, ${waiting.toLocaleString('en')} pending`);
    setText(this.apply.firstChild, waiting ? `Apply ${waiting.toLocaleString('en')} …` : 'Apply');
    this.apply.setAttribute('aria-disabled', String(!waiting));
    this.undo.setAttribute('aria-disabled', String(!undo));
    this.notice.hidden = !notice;
    setText(this.notice, notice);
  }

  /** Errors stay until they are put away: one that is gone before it was read would be lost. */
  onErrors() {
    const lines = this.model.get('errors').map(({ id, text }) => {
      const away = this.button('×', () => this.questions.ask('dismiss', { error: id }), { 'aria-label': 'Put this message away' });
      return h('p', { className: 'error' }, h('span', { textContent: text }), away);
    });
    this.errors.replaceChildren(...lines);
  }

  onMessage(message, buffers = []) {
    if (message.id) this.questions.answered(message.id);
    if (message.id && message.id === this.waiting) this.waiting = null;
    if (message.said) this.say(message.said);
    if (message.version !== this.version) return; // of a list that is no longer shown
    if (message.kind === 'rows') message.rows.forEach((row, i) => this.rows.set(message.start + i, row));
    if (message.kind === 'photos') {
      message.photos.forEach(({ index, reason }, i) => this.photos.put(index, message.side, buffers[i], reason));
    }
    this.show();
  }

  showSilence(silent) {
    if (silent) this.say('The kernel does not answer. Decisions marked … may not have been kept; restart it and show the cleaner again.');
    else if (this.silent) this.say('');
    this.silent = silent;
  }

  say(text) {
    this.said.hidden = !text;
    setText(this.said, text);
  }

  // ---------------------------------------------------------------- asking for photos

  pageStart(index = this.focus) {
    return index - (index % PAGE);
  }

  /** What is missing, the most urgent first: the page in view, then the photos and the page that come next. */
  *missing() {
    const start = this.pageStart();
    yield* this.missingRows(start);
    yield* this.missingPhotos([this.focus], LARGE);
    yield* this.missingPhotos(this.indices(start), THUMB);
    yield* this.missingPhotos([this.focus + 1, this.focus + 2, this.focus - 1], LARGE);
    yield* this.missingRows(start + PAGE);
    yield* this.missingPhotos(this.indices(start + PAGE), THUMB);
  }

  indices(start) {
    return Array.from({ length: PAGE }, (_, i) => start + i);
  }

  *missingRows(start) {
    if (start < this.view.total && !this.rows.has(start)) yield ['rows', { start, stop: start + PAGE }];
  }

  *missingPhotos(indices, side) {
    const missing = indices.filter((i) => this.rows.has(i) && !this.photos.get(i, side));
    if (missing.length) yield ['photos', { indices: missing.slice(0, side === LARGE ? 1 : BATCH), side }];
  }

  /** One question at a time, so that a decision never waits behind a page of photos. */
  fetch() {
    if (this.waiting) return;
    const [first] = this.missing();
    if (first) this.waiting = this.questions.ask(first[0], { version: this.version, ...first[1] });
  }

  // ---------------------------------------------------------------- showing

  show() {
    const { total } = this.view;
    this.focus = Math.max(0, Math.min(this.focus, total - 1));
    this.desk.hidden = this.pages.hidden = !total;
    this.empty.hidden = Boolean(total);
    this.hint.hidden = !total || !this.view.note;
    for (const line of [this.empty, this.hint]) setText(line, this.view.note);
    if (!total) return;
    this.showStage();
    this.showPanel();
    this.showStrip();
    this.fetch();
  }

  /** The large photo, or the small one as long as the large one is on its way. */
  best(index) {
    return this.photos.get(index, LARGE) ?? this.photos.get(index, THUMB);
  }

  showPhoto(image, cant, photo, name) {
    const reason = photo?.reason ?? '';
    if (image.getAttribute('src') !== (photo?.url || null)) {
      if (photo?.url) image.src = photo.url;
      else image.removeAttribute('src');
    }
    image.hidden = !photo?.url;
    image.alt = photo?.url ? name : '';
    setText(cant, reason);
    cant.hidden = !reason;
  }

  showStage() {
    const row = this.rows.get(this.focus);
    const photo = this.best(this.focus);
    const reason = photo?.reason ? { url: '', reason: `This photo can’t be shown: ${photo.reason}. You can decide about it all the same.` } : photo;
    this.showPhoto(this.image, this.cant, reason, row?.name ?? '');
    const place = `${(this.focus + 1).toLocaleString('en')} of ${this.view.total.toLocaleString('en')}`;
    const held = row?.part === 'test' ? 'test part: reported apart' : row?.part;
    this.previous.setAttribute('aria-disabled', String(this.focus === 0));
    this.next.setAttribute('aria-disabled', String(this.focus + 1 >= this.view.total));
    setText(this.caption, [place, row?.name, held].filter(Boolean).join(' · '));
    if (this.zoomDialog.open) this.showEnlarged();
  }

  showBelief({ line, label, p, bar }, name, probability) {
    line.hidden = !name;
    setText(label, name ?? '');
    setText(p, probability == null ? '' : percent(probability));
    bar.style.width = `${100 * (probability ?? 0)}%`;
    bar.parentElement.hidden = probability == null;
  }

  showPanel() {
    const row = this.rows.get(this.focus) ?? { label: '', suggested: '', reasons: [], cue: '', decision: '' };
    this.showBelief(this.given, row.label, row.given);
    this.showBelief(this.suggested, row.suggested, row.probability);
    this.cue.hidden = !row.cue;
    setText(this.cue, row.cue);
    this.reasons.replaceChildren(...row.reasons.map((text) => h('li', { textContent: text })));
    this.showDecision(row);
    setText(this.buttons.relabel.firstChild, row.suggested ? `Relabel to ${row.suggested}` : 'Relabel: no suggestion');
    this.buttons.relabel.setAttribute('aria-disabled', String(!row.suggested));
    this.withdrawButton.setAttribute('aria-disabled', String(!row.decision && !this.past.length));
    for (const [label, button] of this.labelButtons) {
      button.setAttribute('aria-disabled', String(label === row.label));
      button.setAttribute('aria-pressed', String(row.decision === 'relabel' && row.new_label === label));
    }
  }

  showDecision(row) {
    const text = row.decision === 'relabel' ? `Relabel to ${row.new_label}` : DECISIONS[row.decision];
    this.decision.className = `decision ${row.decision}`;
    setText(this.decision, row.decision ? `${SIGNS[row.decision]} ${text}${row.unsent ? ' …' : row.state === 'applied' ? ', applied' : ', not applied yet'}` : 'Not decided yet');
    for (const [name, button] of Object.entries(this.buttons)) {
      button.setAttribute('aria-pressed', String(row.decision === name));
    }
  }

  showStrip() {
    const start = this.pageStart();
    this.cards.forEach((card, i) => this.showCard(card, start + i));
    this.before.setAttribute('aria-disabled', String(start === 0));
    this.after.setAttribute('aria-disabled', String(start + PAGE >= this.view.total));
    const card = this.cards[this.focus - start].item;
    const [left, right] = [card.offsetLeft - this.strip.offsetLeft, card.offsetLeft - this.strip.offsetLeft + card.offsetWidth];
    if (left < this.strip.scrollLeft || right > this.strip.scrollLeft + this.strip.clientWidth) {
      this.strip.scrollLeft = left - (this.strip.clientWidth - card.offsetWidth) / 2; // `scrollIntoView` would move the page
    }
  }

  showCard({ item, button, image, sign, cant }, index) {
    const row = this.rows.get(index);
    item.hidden = index >= this.view.total;
    this.showPhoto(image, cant, this.photos.get(index, THUMB), '');
    if (cant.textContent) setText(cant, 'can’t be shown');
    button.setAttribute('aria-current', String(index === this.focus));
    button.setAttribute('aria-label', row ? `${row.name}, ${row.label}${row.decision ? `, ${row.decision}` : ''}` : 'loading');
    button.title = row ? row.label : '';
    sign.className = `sign ${row?.decision ?? ''}`;
    setText(sign, row?.decision ? SIGNS[row.decision] : '');
  }

  showLabels() {
    this.labelButtons = new Map(this.view.labels.map((label) => {
      const key = this.keyOf.get(label);
      const button = this.button(label, () => this.relabel(label), key ? { 'aria-keyshortcuts': key } : {}, key);
      return [label, button];
    }));
    this.others.replaceChildren(...this.labelButtons.values(), this.newButton);
  }

  // ---------------------------------------------------------------- moving

  goTo(index) {
    this.focus = Math.max(0, Math.min(index, this.view.total - 1));
    this.show();
  }

  move(by, wholePages = false) {
    const from = wholePages ? this.pageStart() : this.focus;
    if (wholePages && (from + by < 0 || from + by >= this.view.total)) return;
    this.goTo(from + by);
  }

  /** To the next photo without a decision, or to the next one where the rows behind it are not here yet. */
  moveOn() {
    let next = this.focus + 1;
    while (next < this.view.total && this.rows.get(next)?.decision) next++;
    if (next < this.view.total) this.goTo(next);
    else this.say('That was the last photo of this list.');
  }

  // ---------------------------------------------------------------- deciding

  /** Whether the photo can be seen; a key that is pressed too early would decide about a photo that nobody looked at. */
  isSeen() {
    const photo = this.best(this.focus);
    const seen = this.rows.has(this.focus) && Boolean(photo) && (Boolean(photo.reason) || this.image.complete);
    if (!seen) this.say('The photo is still on its way.');
    return seen;
  }

  decide(decision, label = '', isNew = false) {
    if (!this.isSeen()) return;
    const row = this.rows.get(this.focus);
    Object.assign(row, { decision, new_label: label, unsent: true });
    this.past.push(row.path);
    this.say('');
    this.questions.ask('decide', { version: this.version, index: this.focus, path: row.path, decision, label, new: isNew });
    this.moveOn();
    this.show();
  }

  relabel(label, isNew = false) {
    const row = this.rows.get(this.focus);
    if (row?.label === label) this.say(`It is under ${label} already; k keeps it there.`);
    else this.decide('relabel', label, isNew || this.view.unused.includes(label));
  }

  relabelToSuggestion() {
    const row = this.rows.get(this.focus);
    if (row?.suggested) this.relabel(row.suggested);
    else this.say('There is no suggestion for this photo: choose a label, or k, a or d.');
  }

  /** Take back the decision on this photo; where it has none, the last one that was made here, and go back to it. */
  withdraw() {
    const row = this.rows.get(this.focus);
    const path = row?.decision ? row.path : this.past.at(-1);
    if (!path) return this.say('There is no decision to withdraw. Undo takes back what was applied.');
    this.past = this.past.filter((o) => o !== path);
    const index = [...this.rows].find(([, other]) => other.path === path)?.[0];
    this.questions.ask('withdraw', { version: this.version, path, index });
    if (index == null) return; // it was scrolled out of memory
    Object.assign(this.rows.get(index), { decision: '', new_label: '', unsent: false });
    this.goTo(index);
  }

  open(change) {
    const { kind, label, part, decided } = this.view;
    const near = this.rows.get(this.focus)?.path ?? '';
    this.past = [];
    this.questions.ask('open', { kind, label, part, decided, near, ...change });
  }

  // ---------------------------------------------------------------- dialogs

  openDialog() {
    return [this.keysDialog, this.generaDialog, this.zoomDialog, this.askDialog].find((dialog) => dialog.open);
  }

  ask(title, contents, choices) {
    setText(this.askDialog.querySelector('h2'), title);
    this.askDialog.setAttribute('aria-label', title);
    this.askText.replaceChildren(...contents);
    const close = (action) => () => { this.askDialog.close(); action(); };
    this.askButtons.replaceChildren(...choices.map(([text, action], i) => this.button(text, close(action), { className: i ? '' : 'primary' })),
      this.button('Cancel', () => this.askDialog.close()));
    this.askDialog.showModal();
    (this.askText.querySelector('input') ?? this.askButtons.querySelector('button')).focus();
  }

  askApply() {
    const { keep = 0, relabel = 0, ambiguous = 0, delete: gone = 0 } = this.model.get('status').pending;
    const lines = [
      relabel && `${count(relabel, 'photo moves', 'photos move')} to another class.`,
      gone && `${count(gone, 'deleted photo goes', 'deleted photos go')} to .quarantine.`,
      ambiguous && `${count(ambiguous, 'ambiguous photo goes', 'ambiguous photos go')} to .quarantine.`,
      keep && `${count(keep, 'photo stays where it is', 'photos stay where they are')}, and that is written down.`,
    ];
    const moved = relabel + gone + ambiguous;
    this.ask('Apply the decisions', [
      h('ul', {}, ...lines.filter(Boolean).map((text) => h('li', { textContent: text }))),
      h('p', { textContent: 'Nothing is lost: Undo puts each photo back.' }),
    ], [[moved ? `Move ${count(moved, 'photo')}` : 'Write them down', () => this.change('apply')]]);
  }

  askUndo() {
    const { last, session, in_session: n, is_own: isOwn } = this.model.get('status');
    const choices = [['Take back the last one', () => this.change('undo')]];
    const which = isOwn ? 'this session' : `the session of ${session.slice(0, 16).replace('T', ' ')} (UTC)`;
    if (n > 1) choices.push([`Take back all ${n.toLocaleString('en')} of ${which}`, () => this.change('undo', { session })]);
    this.ask('Undo what was applied', [h('p', { textContent: `The last one: ${last}` })], choices);
  }

  change(action, details = {}) {
    this.past = [];
    this.say(action === 'apply' ? 'Applying …' : 'Taking back …');
    this.questions.ask(action, { near: this.rows.get(this.focus)?.path ?? '', ...details });
  }

  askLabel() {
    const input = h('input', { type: 'text', maxLength: 100, 'aria-label': 'New label', placeholder: 'for example Contrail' });
    const take = () => input.value.trim() && this.relabel(input.value.trim(), true);
    input.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter') return;
      event.preventDefault();
      this.askDialog.close();
      take();
    });
    this.ask('Relabel to a new label', [h('p', { textContent: 'Applying makes a class folder of this name.' }), input], [['Relabel', take]]);
  }

  showGenera() {
    const row = this.rows.get(this.focus) ?? {};
    const marked = (genus) => [row.label, row.suggested].includes(genus.name);
    const genera = this.model.get('genera').toSorted((a, b) => marked(b) - marked(a)); // the two in question come first
    const cards = genera.map((genus) => h('article', { className: marked(genus) ? 'marked' : '' },
      h('h3', {}, genus.name, h('small', { textContent: ` ${genus.abbreviation} · ${genus.height}` })),
      h('p', { textContent: genus.texture }),
      h('ul', {}, ...genus.lookalikes.map(([name, cue]) => h('li', {}, h('b', { textContent: name }), `: ${cue}`)))));
    this.generaList.replaceChildren(...cards);
    this.generaDialog.showModal();
    this.generaDialog.scrollTop = 0;
  }

  enlarge() {
    if (!this.best(this.focus)?.url) return;
    this.showEnlarged();
    this.zoomDialog.showModal();
    this.zoomDialog.focus(); // not its button: Enter relabels here, too
  }

  showEnlarged() {
    const row = this.rows.get(this.focus);
    this.showPhoto(this.large, this.largeCaption, this.best(this.focus), row?.name ?? '');
    this.largeCaption.hidden = false;
    setText(this.largeCaption, [this.caption.textContent, row?.label, row?.suggested && `suggested ${row.suggested}`].filter(Boolean).join(' · '));
  }

  // ---------------------------------------------------------------- keys

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
    const on = event.target.closest?.('button, select, input, textarea, a, summary');
    if (on?.matches('select, textarea, input:not([type=checkbox])')) return;
    if (on && (event.key === 'Enter' || event.key === ' ')) return; // the button's own
    const dialog = this.openDialog();
    if (dialog && dialog !== this.zoomDialog) return;
    const action = this.actionOf(event.key);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook around has keys of its own
    if (!event.repeat || event.key.startsWith('Arrow') || event.key.startsWith('Page')) action();
  }

  actionOf(key) {
    const byKey = {
      k: () => this.decide('keep'), a: () => this.decide('ambiguous'), d: () => this.decide('delete'),
      r: () => this.relabelToSuggestion(), Enter: () => this.relabelToSuggestion(), u: () => this.withdraw(),
      n: () => this.askLabel(), g: () => this.showGenera(), '?': () => this.keysDialog.showModal(),
      z: () => (this.zoomDialog.open ? this.zoomDialog.close() : this.enlarge()),
      ArrowLeft: () => this.move(-1), ArrowUp: () => this.move(-1), ArrowRight: () => this.move(1), ArrowDown: () => this.move(1),
      PageUp: () => this.move(-PAGE, true), PageDown: () => this.move(PAGE, true),
      Home: () => this.goTo(0), End: () => this.goTo(this.view.total - 1),
    };
    const label = this.view.labels.find((o) => this.keyOf.get(o) === key.toLowerCase());
    if (!this.view.total && 'kadruEnterz'.includes(key)) return null;
    return byKey[key] ?? byKey[key.toLowerCase()] ?? (label && this.view.total && (() => this.relabel(label)));
  }
}

function render({ model, el }) {
  const view = new CleanerView(model, el);
  return () => view.remove();
}

export default { render };
