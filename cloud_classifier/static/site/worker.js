// Opens photos and runs the network, off the page's thread.

import {BadImage, tooLarge} from './errors.js';
import {decide} from './decide.js';
import {openPhoto} from './photo.js';
import {minSide, normalise, square} from './preprocess.js';

const PREVIEW = 640; // pixels of the longer side
const place = name => new URL(name, import.meta.url).href;
let site;
let session;
let ort;

async function fetchFile(name) {
  const answer = await fetch(place(name));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer;
}

async function load() {
  site = await (await fetchFile('model.json')).json();
  const fetched = fetchFile(site.model.file).then(answer => answer.arrayBuffer());
  const [library, model] = await Promise.all([import(place(site.ort.script)), fetched]);
  ort = library;
  ort.env.wasm.numThreads = 1; // several would need headers that few hosts of static files send
  ort.env.wasm.wasmPaths = {wasm: place(site.ort.wasm)};
  session = await ort.InferenceSession.create(model, {executionProviders: ['wasm']});
  const {size} = site.model.preprocess;
  await run(new Float32Array(3 * size * size)); // the first run is the slowest
}

function run(pixels) {
  const {size} = site.model.preprocess;
  return session.run({[session.inputNames[0]]: new ort.Tensor('float32', pixels, [1, 3, size, size])});
}

const ready = load();
ready.then(
  () => self.postMessage({ready: true, model: site.model}),
  error => self.postMessage({failed: String(error?.message ?? error)}),
);

// What the network says of an upright image.
async function predict(image) {
  const {preprocess} = site.model;
  const outputs = await run(normalise(square(image, preprocess), preprocess));
  const logits = outputs.logits.data;
  const score = outputs.ood_score ? outputs.ood_score.data[0] : null;
  if (![...logits, score ?? 0].every(Number.isFinite))
    throw new Error('the network answers with numbers that are not finite');
  return decide(logits, score, site.model);
}

function preview({width, height, data}) {
  const scale = Math.min(1, PREVIEW / Math.max(width, height));
  return createImageBitmap(new ImageData(data, width, height), {
    resizeWidth: Math.max(1, Math.round(width * scale)),
    resizeHeight: Math.max(1, Math.round(height * scale)),
    resizeQuality: 'medium',
  });
}

async function answerPhoto(file) {
  const {bytes: limit} = site.limits;
  if (file.size > limit) throw tooLarge(`${Math.round(file.size / 1e6)} MB is over the limit of ${limit / 1e6} MB`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const image = await openPhoto({name: file.name, bytes}, minSide(site.model.preprocess), site);
  return {answer: await predict(image), picture: await preview(image)};
}

// A frame of the camera, which is upright already.
async function answerFrame(bitmap, keep) {
  const {width, height} = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const image = context.getImageData(0, 0, width, height);
  return {answer: await predict(image), picture: keep ? await preview(image) : undefined};
}

async function work({id, file, frame, keep}) {
  try {
    await ready;
    const result = file ? await answerPhoto(file) : await answerFrame(frame, keep);
    self.postMessage({id, ...result}, result.picture ? [result.picture] : []);
  } catch (error) {
    const known = error instanceof BadImage;
    self.postMessage({id, error: {kind: known ? error.kind : 'failed', reason: error.message}});
  }
}

let last = Promise.resolve();
self.onmessage = ({data}) => {
  last = last.then(() => work(data));
}; // one after the other: memory stays bounded
