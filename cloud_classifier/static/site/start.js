// Starts the worker, bound by the page's content-security policy.

const PLACE = new URL('worker.js', import.meta.url).href;

// A worker that is read from a blob: obeys the policy of the page that made it; one that is read from a server obeys
// headers, which hosts of static files don't send.
function boundWorker() {
  const script = new Blob([`import ${JSON.stringify(PLACE)};`], {type: 'text/javascript'});
  return new Worker(URL.createObjectURL(script), {type: 'module'});
}

// The worker, once it is known to run. A browser that can't start the bound one gets the plain one.
export function startWorker(received, say) {
  return new Promise(resolve => {
    function listen(worker, failed) {
      worker.onerror = failed;
      worker.onmessage = event => {
        resolve(worker);
        received(event);
      };
    }
    listen(boundWorker(), () =>
      listen(new Worker(PLACE, {type: 'module'}), () =>
        say('This browser can’t run the model: it needs one of the last three years.'),
      ),
    );
  });
}
