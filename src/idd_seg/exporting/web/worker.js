'use strict';
// The network, beside the page, which stays responsive. It gets addresses first, then pictures, one at a time.
let ort = null;
let session = null;

const start = async ({ script, program, model }) => {
  ort = await import(script);
  ort.env.wasm.numThreads = 1; // more need headers that plain servers do not send
  ort.env.wasm.wasmPaths = { wasm: program };
  ort.env.logLevel = 'error';
  session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'], graphOptimizationLevel: 'all' });
};

// From red, green, blue and opacity side by side to planes of red, green and blue.
const planesOf = (rgba, pixels) => {
  const planes = new Uint8Array(3 * pixels);
  for (let p = 0, from = 0; p < pixels; p += 1, from += 4) {
    planes[p] = rgba[from];
    planes[pixels + p] = rgba[from + 1];
    planes[2 * pixels + p] = rgba[from + 2];
  }
  return planes;
};

const show = async ({ rgba, width, height }) => {
  const begin = performance.now();
  const image = new ort.Tensor('uint8', planesOf(rgba, width * height), [1, 3, height, width]);
  const { classes } = await session.run({ image });
  const found = classes.data.slice();
  const ms = performance.now() - begin;
  classes.dispose();
  image.dispose();
  return { classes: found, ms };
};

onmessage = async ({ data }) => {
  try {
    if (data.kind === 'start') {
      await start(data);
      postMessage({ kind: 'ready' });
    } else {
      const found = await show(data);
      postMessage({ kind: 'shown', ...found }, [found.classes.buffer]);
    }
  } catch (error) {
    postMessage({ kind: 'failed', message: String((error && error.message) || error) });
  }
};
