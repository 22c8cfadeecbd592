// The picture, the colours of its classes over it, and the pointer.
const view = (() => {
  const [frame, picture, overlay, cross] = ['frame', 'picture', 'overlay', 'cross'].map(byId);
  const colours = new Uint32Array(model.names.length);
  let shown = null; // { classes, width, height }
  let place = null; // of the pointer, in pixels of the classes

  // As canvases lay out their bytes, whatever the order of this machine's.
  const pack = (colour) => new Uint32Array(new Uint8Array([...colour, 255]).buffer)[0];

  const paint = () => {
    if (!shown) return;
    model.palette.forEach((colour, index) => (colours[index] = legend.isAlone(index) ? pack(colour) : 0));
    const { classes, width, height } = shown;
    const pixels = new Uint32Array(classes.length);
    for (let p = 0; p < classes.length; p += 1) pixels[p] = colours[classes[p]];
    overlay.width = width;
    overlay.height = height;
    overlay.getContext('2d', { willReadFrequently: true }).putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  };

  const count = ({ classes }) => {
    const counts = new Array(model.names.length).fill(0);
    for (let p = 0; p < classes.length; p += 1) counts[classes[p]] += 1;
    return counts;
  };

  const draw = (source, found, isStill) => {
    picture.width = source.width;
    picture.height = source.height;
    picture.getContext('2d', { alpha: false }).drawImage(source, 0, 0);
    frame.style.setProperty('--ratio', source.width / source.height);
    shown = found;
    byId('hint').hidden = true;
    frame.hidden = false;
    byId('drop').classList.add('filled');
    if (isStill) place = null;
    legend.update(count(found), found.classes.length, isStill);
    paint();
    tell();
  };

  const tell = () => {
    const under = byId('under');
    under.replaceChildren();
    under.hidden = !shown;
    cross.hidden = !place;
    if (!shown || !place) {
      legend.mark(null);
      return;
    }
    const x = Math.min(place.x, shown.width - 1);
    const y = Math.min(place.y, shown.height - 1);
    const index = shown.classes[y * shown.width + x];
    const label = document.createElement('span');
    label.textContent = model.names[index];
    under.append(swatch(index), label);
    legend.mark(index);
    cross.style.left = `${(100 * (x + 0.5)) / shown.width}%`;
    cross.style.top = `${(100 * (y + 0.5)) / shown.height}%`;
  };

  const point = ({ clientX, clientY, pointerType }) => {
    if (!shown) return;
    const box = overlay.getBoundingClientRect();
    const x = Math.floor(((clientX - box.left) * shown.width) / box.width);
    const y = Math.floor(((clientY - box.top) * shown.height) / box.height);
    place = x >= 0 && y >= 0 && x < shown.width && y < shown.height ? { x, y } : null;
    tell();
    cross.hidden = cross.hidden || pointerType === 'mouse'; // which has a pointer of its own
  };

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const press = (event) => {
    const move = MOVES[event.key];
    if (!shown || !move) return;
    event.preventDefault();
    const step = event.shiftKey ? 1 : Math.max(1, Math.round(shown.width / 40));
    const from = place || { x: shown.width >> 1, y: shown.height >> 1 };
    const within = (value, most) => Math.max(0, Math.min(most - 1, value));
    place = place
      ? { x: within(from.x + move[0] * step, shown.width), y: within(from.y + move[1] * step, shown.height) }
      : from;
    tell();
  };

  frame.addEventListener('pointermove', point);
  frame.addEventListener('pointerdown', point);
  frame.addEventListener('pointerleave', (event) => {
    if (event.pointerType !== 'mouse') return;
    place = null;
    tell();
  });
  frame.addEventListener('keydown', press);
  const fade = () => (overlay.style.opacity = byId('opacity').value / 100);
  byId('opacity').addEventListener('input', fade);
  fade();
  return { draw, paint };
})();
