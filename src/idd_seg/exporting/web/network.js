// Text enters the page by textContent alone, so that no name can become markup.
const byId = (id) => document.getElementById(id);
const model = JSON.parse(byId('model').textContent);

const say = (text, isBad = false) => {
  byId('state').textContent = text;
  byId('state').classList.toggle('bad', isBad);
};

// The worker's answers come in the order of the questions, of which there is one at a time.
const network = (() => {
  let worker = null;
  let waiting = null;
  const ask = (message, transfer = []) =>
    new Promise((resolve, reject) => {
      waiting = { resolve, reject };
      worker.postMessage(message, transfer);
    });
  const answered = (answer) => {
    if (!waiting) return; // an error that nobody's question has caused
    const { resolve, reject } = waiting;
    waiting = null;
    if (answer.kind === 'failed') reject(new Error(answer.message));
    else resolve(answer);
  };
  const start = () => {
    const code = new Blob([byId('worker').textContent], { type: 'text/javascript' });
    worker = new Worker(URL.createObjectURL(code));
    worker.onmessage = ({ data }) => answered(data);
    worker.onerror = (event) => answered({ kind: 'failed', message: event.message || 'the worker did not start' });
    const here = (path) => new URL(path, location.href).href;
    return ask({ kind: 'start', script: here(model.script), program: here(model.program), model: here(model.file) });
  };
  const show = ({ data, width, height }) => ask({ kind: 'show', rgba: data, width, height }, [data.buffer]);
  return { start, show };
})();
