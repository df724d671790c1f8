const worker = new Worker(new URL('worker.js', import.meta.url), {type: 'module'});
const waiting = new Map(); let n = 0;
worker.onmessage = ({data}) => { if (data.id === undefined) { window.state = data; return; } waiting.get(data.id)(data); };
window.ask = file => new Promise(r => { waiting.set(++n, r); worker.postMessage({id: n, file}); });
const input = document.querySelector('#photos');
input.onchange = async () => { for (const f of input.files) { const a = await ask(f); const e = document.createElement('div'); e.className='answer'; e.dataset.name=f.name; e.dataset.json = JSON.stringify({...a, picture: undefined}); document.body.append(e);} };
