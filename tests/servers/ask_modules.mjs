// The modules of the page, asked without a browser: a job of JSON on stdin, the answer on stdout.
// node ask_modules.mjs FOLDER, where FOLDER has the modules and a package.json that says they are modules.

import {readFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';

const from = name => import(pathToFileURL(`${process.argv[2]}/${name}`));
const [{decide}, {openPhoto}, {square, normalise}] = await Promise.all(['decide.js', 'photo.js', 'preprocess.js'].map(from));
const base64 = data => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');

const TASKS = {
  decide: ({logits, score, model}) => decide(logits, score, model),
  open: async ({name, bytes, side, site}) => {
    try {
      const {width, height, data} = await openPhoto({name, bytes: new Uint8Array(Buffer.from(bytes, 'base64'))}, side, site);
      return {width, height, data: base64(data)};
    } catch (error) { return {kind: error.kind ?? 'failed', reason: error.message}; }
  },
  square: ({width, height, data, preprocess}) => {
    const image = square({width, height, data: new Uint8ClampedArray(Buffer.from(data, 'base64'))}, preprocess);
    return {data: base64(image.data), normal: base64(normalise(image, preprocess))};
  },
};

const {task, jobs} = JSON.parse(readFileSync(0, 'utf8')), answers = [];
for (const job of jobs) answers.push(await TASKS[task](job));
process.stdout.write(JSON.stringify(answers));
