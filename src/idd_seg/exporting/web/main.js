// From a photograph or the camera to the network, and back to the page.
const TIMES = 20;
const speed = []; // milliseconds of the last pictures of one size
let current = null; // the photograph: { bitmap, name }
let queue = Promise.resolve(); // of what the network is asked
let stream = null;
let asked = 0; // photographs, of which the last one counts: a large one may be decoded after it

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// A picture of at most the chosen longest side, as a canvas.
const fitted = (source, width, height) => {
  const ratio = Math.min(1, byId('side').value / Math.max(width, height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
};

const tellSize = (canvas, width, height, name) => {
  const size = `${canvas.width} x ${canvas.height}`;
  const isSmaller = canvas.width !== width || canvas.height !== height;
  byId('size').textContent = isSmaller
    ? `${name}: ${width} x ${height}, shown to the network at ${size}; "Longest side" changes that.`
    : `${name}: ${size}, as it is.`;
};

const run = async (canvas) => {
  const { width, height } = canvas;
  const found = await network.show(canvas.getContext('2d').getImageData(0, 0, width, height));
  return { ms: found.ms, shown: { classes: found.classes, width, height } };
};

const tellSpeed = (ms, { width, height }) => {
  const size = `${width} x ${height}`;
  if (speed.size !== size) speed.length = 0;
  speed.size = size;
  speed.push(ms);
  if (speed.length > TIMES) speed.shift();
  const middle = median(speed);
  say(`${middle.toFixed(0)} ms a picture (${(1000 / middle).toFixed(1)} a second), one thread`);
};

const failed = (error) => {
  stopCamera();
  const advice = /memory|alloc|out of bounds/i.test(error.message) ? ' Choose a smaller longest side.' : '';
  say(`That did not work: ${error.message}.${advice}`, true);
};

// One thing after the other: the network shows one picture at a time.
const inTurn = (work) => {
  queue = queue.then(work).catch(failed).finally(() => (byId('time').hidden = !current || stream !== null));
  return queue;
};

const showCurrent = () =>
  inTurn(async () => {
    if (!current) return;
    const { bitmap, name } = current;
    const canvas = fitted(bitmap, bitmap.width, bitmap.height);
    tellSize(canvas, bitmap.width, bitmap.height, name);
    say('Working ...');
    const { ms, shown } = await run(canvas);
    view.draw(canvas, shown, true);
    speed.length = 0;
    tellSpeed(ms, shown);
  });

const open = async (file) => {
  asked += 1;
  const mine = asked;
  stopCamera();
  if (!(await ready)) return;
  try {
    // The values that are stored, as the training read them: turned upright, without conversion of colours.
    const bitmap = await createImageBitmap(file, { imageOrientation: 'from-image', colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
    if (mine !== asked) return;
    if (current) current.bitmap.close();
    current = { bitmap, name: file.name || 'Picture' };
  } catch (error) {
    say(`${file.name || 'The file'} is no picture that this browser can read.`, true);
    return;
  }
  await showCurrent();
};

const timeIt = () =>
  inTurn(async () => {
    const { bitmap } = current;
    const canvas = fitted(bitmap, bitmap.width, bitmap.height);
    const times = [];
    for (let i = 0; i < TIMES; i += 1) {
      say(`Timing: ${i + 1} of ${TIMES} ...`);
      times.push((await run(canvas)).ms);
    }
    const [middle, least, most] = [median(times), Math.min(...times), Math.max(...times)].map((ms) => ms.toFixed(0));
    say(`${middle} ms a picture, the median of ${TIMES} (${least} to ${most}), ${canvas.width} x ${canvas.height}, one thread`);
  });

const stopCamera = () => {
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  byId('video').srcObject = null;
  byId('camera').textContent = 'Start the camera';
  byId('camera').setAttribute('aria-pressed', 'false');
};

const startCamera = async () => {
  if (!navigator.mediaDevices) {
    say('A browser gives the camera to pages from localhost and by https alone.', true);
    return;
  }
  if (!(await ready)) return;
  const video = byId('video');
  byId('camera').disabled = true; // until it runs or not
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' }, audio: false });
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    stopCamera();
    say(`The camera can't be used: ${error.message}.`, true);
    return;
  } finally {
    byId('camera').disabled = false;
  }
  byId('camera').textContent = 'Stop the camera';
  byId('camera').setAttribute('aria-pressed', 'true');
  speed.length = 0;
  requestAnimationFrame(nextFrame);
};

const nextFrame = async () => {
  const video = byId('video');
  await inTurn(async () => {
    if (!stream || !video.videoWidth) return;
    const canvas = fitted(video, video.videoWidth, video.videoHeight);
    tellSize(canvas, video.videoWidth, video.videoHeight, 'Camera');
    const { ms, shown } = await run(canvas);
    if (!stream) return;
    view.draw(canvas, shown, false);
    tellSpeed(ms, shown);
  });
  if (stream) requestAnimationFrame(nextFrame);
};

for (const side of model.sides) byId('side').append(new Option(`${side} pixels`, side, side === model.side, side === model.side));
byId('side').addEventListener('change', () => (stream ? null : showCurrent()));
byId('file').addEventListener('change', ({ target }) => {
  if (target.files.length) open(target.files[0]);
  target.value = '';
});
byId('camera').addEventListener('click', () => (stream ? stopCamera() : startCamera()));
byId('time').addEventListener('click', timeIt);
const drop = byId('drop');
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  drop.classList.add('over');
});
document.addEventListener('dragleave', (event) => drop.classList.toggle('over', event.relatedTarget !== null));
document.addEventListener('drop', (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
document.addEventListener('paste', (event) => {
  if (event.clipboardData.files.length) open(event.clipboardData.files[0]);
});

const start = async () => {
  if (location.protocol === 'file:') {
    say('Browsers run no network from a file. In the folder of this page, run "python -m http.server", and open http://localhost:8000.', true);
    return false;
  }
  try {
    await network.start();
    say('Ready.');
    return true;
  } catch (error) {
    say(`The network could not be loaded: ${error.message}. Are all files of this folder there?`, true);
    return false;
  }
};
const ready = start();
