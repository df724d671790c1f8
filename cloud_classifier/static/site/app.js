// The page: photos come in, cards come out. What takes time happens in worker.js.

import {cardNodes} from './about.js';
import {currentFrame, startCamera, stopCamera} from './camera.js';
import {answerCard, errorCard, nameLabels, waitingCard} from './card.js';
import {$, el} from './dom.js';
import {startWorker} from './start.js';

const CALM_MS = 2000; // after which a page that was asked nothing keeps its files: that takes time from answers
const waiting = new Map(); // what is to be done with the answer to each question
let count = 0;
let open = 0;
let done = 0;
let model = null;
let kept = false;
const worker = startWorker(received, say);

function say(text) {
  $('state').textContent = text;
}

// Ask about {file} or {frame}; the answer is {answer, picture} or {error}.
function ask(question) {
  const id = ++count;
  return new Promise(resolve => {
    waiting.set(id, resolve);
    worker.then(o => o.postMessage({id, ...question}, question.frame ? [question.frame] : []));
  });
}

function received({data}) {
  if (data.ready) return begin(data.model);
  if (data.failed) return say(`The model could not be loaded (${data.failed}); reload the page to try again.`);
  waiting.get(data.id)(data);
  waiting.delete(data.id);
}

function begin(facts) {
  model = facts;
  nameLabels(model);
  document.body.dataset.ready = 'true';
  say('Ready.');
  setTimeout(() => open || keepOffline(), CALM_MS);
}

function progress() {
  if (done < open) say(`${done} of ${open} photos answered …`);
  else {
    say(open === 1 ? 'Answered.' : `All ${open} photos answered.`);
    open = done = 0;
    keepOffline();
  }
}

// Put a card for a question into the list; it becomes the answer's.
async function addCard(name, question, before) {
  const place = waitingCard(name);
  $('answers').insertBefore(place, before);
  open++;
  if (model) progress();
  const {answer, picture, error} = await ask(question);
  place.replaceWith(answer ? answerCard(name, answer, picture, model) : errorCard(name, error));
  done++;
  progress();
}

// The latest photos come first, those of a batch in their order.
function addPhotos(files) {
  if (!files.length) return; // text was pasted, or dropped
  const before = $('answers').firstChild;
  for (const file of files) addCard(file.name || 'pasted photo', {file}, before);
  $('clear').hidden = false;
}

function chosen(event) {
  addPhotos([...event.target.files]);
  event.target.value = ''; // the same photo may be chosen again
}

$('photos').addEventListener('change', chosen);
$('take').addEventListener('change', chosen);

addEventListener('paste', ({clipboardData}) => addPhotos([...clipboardData.files]));
addEventListener('dragover', event => {
  event.preventDefault();
  document.body.classList.add('over');
});
addEventListener('dragleave', event => {
  if (!event.relatedTarget) document.body.classList.remove('over');
});
addEventListener('drop', event => {
  event.preventDefault();
  document.body.classList.remove('over');
  addPhotos([...event.dataTransfer.files]);
});

$('clear').addEventListener('click', () => {
  $('answers')
    .querySelectorAll('.answer')
    .forEach(card => card.remove());
  $('clear').hidden = !$('answers').firstChild;
});

$('live').addEventListener('click', () => startCamera(ask).catch(error => say(error.message)));
$('stop').addEventListener('click', stopCamera);
$('keep').addEventListener('click', async () => {
  const name = `Camera, ${new Date().toLocaleTimeString()}`;
  addCard(name, {frame: await currentFrame(), keep: true}, $('answers').firstChild);
  $('clear').hidden = false;
});

$('about-open').addEventListener('click', () => {
  $('about-text').replaceChildren(...(model ? cardNodes(model.card) : [el('p', {}, 'The model is not there yet.')]));
  $('about').showModal();
});
$('about-close').addEventListener('click', () => $('about').close());
$('about').addEventListener('click', event => {
  if (event.target === $('about')) $('about').close();
});

addEventListener('beforeinstallprompt', event => {
  event.preventDefault();
  $('install').hidden = false;
  $('install').onclick = () => event.prompt();
});
addEventListener('appinstalled', () => {
  $('install').hidden = true;
});

// Keep all files for days without a connection, and tell where a new version waits. Answers come first.
async function keepOffline() {
  if (kept || !('serviceWorker' in navigator)) return;
  kept = true;
  const first = !navigator.serviceWorker.controller;
  const registration = await navigator.serviceWorker.register('sw.js', {updateViaCache: 'none'}).catch(() => null);
  if (!registration) return;
  const offer = () => {
    if (!registration.waiting || !navigator.serviceWorker.controller) return;
    $('notice').hidden = false;
    $('update').onclick = () => registration.waiting.postMessage('take over');
  };
  offer();
  registration.addEventListener('updatefound', () => registration.installing.addEventListener('statechange', offer));
  navigator.serviceWorker.addEventListener('controllerchange', () => {
    if (!first) location.reload();
  });
  await navigator.serviceWorker.ready;
  document.body.dataset.offline = 'true';
  if ($('state').textContent === 'Ready.') say('Ready, also without a connection.');
}
