// The live view: a frame of the camera is asked about twice a second.

import {headline, percent, title} from './card.js';
import {$, el} from './dom.js';

const PERIOD = 500; // milliseconds
let stream = null;
let timer = 0;
let asking = false;

const REASONS = {
  NotAllowedError: 'The camera may not be used: allow it in the browser’s settings for this page.',
  NotFoundError: 'There is no camera.',
  NotReadableError: 'The camera is used by another program.',
};

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia)
    throw new Error('The camera can only be used on a page that came by https.');
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: {
        facingMode: {ideal: 'environment'},
        width: {ideal: 1280},
        height: {ideal: 960},
      },
    });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The camera can’t be used (${error.message}).`);
  }
}

function show(answer) {
  const now = $('now');
  now.replaceChildren(
    el('strong', {}, headline(answer)),
    el(
      'span',
      {},
      answer.verdict === 'not_a_sky'
        ? 'Point it at the sky'
        : answer.top.map(({label, probability}) => `${title(label)} ${percent(probability)}`).join(' · '),
    ),
  );
  now.dataset.label = answer.label;
  now.dataset.verdict = answer.verdict;
  now.dataset.count = +(now.dataset.count ?? 0) + 1;
}

async function look(ask) {
  const video = $('video');
  if (asking || !stream || video.readyState < 2 || document.hidden) return;
  asking = true;
  try {
    const {answer} = await ask({frame: await createImageBitmap(video)});
    if (answer && stream) show(answer);
  } finally {
    asking = false;
  }
}

export async function startCamera(ask) {
  if (stream) return;
  stream = await openCamera();
  $('camera').hidden = false;
  $('video').srcObject = stream;
  await $('video').play();
  timer = setInterval(look, PERIOD, ask);
}

export function stopCamera() {
  clearInterval(timer);
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
  $('video').srcObject = null;
  $('camera').hidden = true;
}

// What the camera sees now, as a bitmap.
export const currentFrame = () => createImageBitmap($('video'));
