// Keeps the site for days without a connection. `build_site` writes VERSION and FILES in front of this.

const CACHE = `clouds-${VERSION}`;
const NAMED_BY_CONTENT = /\.[0-9a-f]{12}\.\w+$/; // such a file never changes
const address = name => new URL(name, registration.scope).href;

// A file of this version: from an earlier one where it can't differ, else from the server.
async function fetchFile(name) {
  const fixed = NAMED_BY_CONTENT.test(name);
  const url = address(name);
  const answer = (fixed && (await caches.match(url))) || (await fetch(url, {cache: fixed ? 'default' : 'no-cache'}));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer;
}

async function install() {
  const cache = await caches.open(CACHE);
  for (const name of FILES) await cache.put(address(name), await fetchFile(name));
  await cache.put(address('./'), (await cache.match(address('index.html'))).clone());
}

async function activate() {
  const others = (await caches.keys()).filter(name => name.startsWith('clouds-') && name !== CACHE);
  await Promise.all(others.map(name => caches.delete(name)));
  await clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request, {ignoreSearch: true})) ?? fetch(request);
}

addEventListener('install', event => event.waitUntil(install()));
addEventListener('activate', event => event.waitUntil(activate()));
addEventListener('message', event => {
  if (event.data === 'take over') skipWaiting();
});
addEventListener('fetch', event => {
  const {request} = event;
  const {origin} = new URL(request.url);
  if (origin !== location.origin)
    event.respondWith(Response.error()); // nothing goes anywhere else, photos least of all
  else if (request.method === 'GET') event.respondWith(answer(request));
});
