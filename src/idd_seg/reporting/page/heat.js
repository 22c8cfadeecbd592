const STOPS = { both: [[40, 130, 200], [150, 125, 160], [225, 115, 20]], rise: [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], around: [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]] };
const shade = (ramp, share) => {
  const stops = STOPS[ramp];
  const place = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(place));
  return stops[low].map((v, k) => Math.round(v + (place - low) * (stops[low + 1][k] - v)));
};
const rgb = (c) => `rgb(${c[0]} ${c[1]} ${c[2]})`;

const AXIS = 104; // pixels for the names along an axis
const LINE = 11; // pixels that a name needs
// The names along a side of a matrix; some are left out where they would be written over each other.
const nameAxis = (names, cell, upright) => {
  const length = names.length * cell;
  const each = Math.max(1, Math.ceil(LINE / cell));
  const texts = names.map((name, i) => [name, (i + 0.5) * cell]).filter((_, i) => i % each === 0).map(([name, at]) => svg('text', { transform: upright ? `translate(${at} 5) rotate(-90)` : `translate(${AXIS - 5} ${at})`, 'text-anchor': 'end', dy: '.35em' }, name.length > 16 ? `${name.slice(0, 15)}…` : name, svg('title', {}, name)));
  return svg('svg', { viewBox: upright ? `0 0 ${length} ${AXIS}` : `0 0 ${AXIS} ${length}`, 'aria-hidden': 'true' }, ...texts);
};

// A matrix as a picture with the names of its classes; arrow keys and the pointer read its cells.
const heat = (title, matrix, names, ramp, low, high, words, large, curve = (share) => share) => {
  const n = matrix.length;
  const cell = Math.max(300 / n, large ? LINE + 1 : 0);
  const scale = Math.max(1, Math.floor(Math.max(420, n * cell) / n));
  const canvas = el('canvas', { width: n * scale, height: n * scale, tabindex: '0', role: 'img', 'aria-label': `${title}: matrix of ${n} classes; arrow keys read the cells` });
  const pen = canvas.getContext('2d');
  const paint = (i, j) => {
    const value = matrix[i][j];
    pen.fillStyle = value === null ? '#8888' : rgb(shade(ramp, curve((value - low) / (high - low || 1))));
    pen.clearRect(j * scale, i * scale, scale, scale);
    pen.fillRect(j * scale, i * scale, scale, scale);
  };
  for (let i = 0; i < n; i += 1) for (let j = 0; j < n; j += 1) paint(i, j);
  const output = el('output', { 'aria-live': 'polite' });
  let [row, column] = [0, 0];
  const show = (i, j) => {
    paint(row, column);
    [row, column] = [i, j];
    pen.lineWidth = Math.max(1, scale / 8);
    pen.strokeStyle = '#fff';
    pen.strokeRect(j * scale + pen.lineWidth / 2, i * scale + pen.lineWidth / 2, scale - pen.lineWidth, scale - pen.lineWidth);
    output.textContent = words(names[i], names[j], matrix[i][j]);
  };
  canvas.addEventListener('pointermove', (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = (v) => Math.max(0, Math.min(n - 1, Math.floor(v * n)));
    show(cell((event.clientY - box.top) / box.height), cell((event.clientX - box.left) / box.width));
  });
  canvas.addEventListener('focus', () => show(row, column));
  canvas.addEventListener('keydown', (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    show(Math.max(0, Math.min(n - 1, row + move[0])), Math.max(0, Math.min(n - 1, column + move[1])));
  });
  const strip = el('div', { class: 'ramp' });
  strip.style.background = `linear-gradient(to right, ${STOPS[ramp].map(rgb).join(', ')})`;
  const grid = el('div', { class: 'heat' }, nameAxis(names, cell, false), canvas, el('span'), nameAxis(names, cell, true));
  grid.style.gridTemplateColumns = `${AXIS}fr ${n * cell}fr`;
  grid.style[large ? 'width' : 'maxWidth'] = `${AXIS + n * cell}px`;
  const scroll = large ? el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': title }, grid) : grid;
  return el('div', {}, el('h3', {}, title), scroll, strip, el('p', { class: 'soft' }, `${compact(low)} to ${compact(high)}${curve === Math.sqrt ? ', colours by the square root' : ''}; grey: no such class`), output);
};

const embedded = () => data.runs.map((run, i) => [i, run]).filter(([, run]) => run.exhibits);
const labelOf = (i) => {
  const group = data.groups.find((g) => g.runs.includes(i));
  return `${group.label}${data.runs[i].seed === null ? '' : `, seed ${data.runs[i].seed}`}`;
};
const exhibitChoices = () => embedded().map(([i]) => [i, labelOf(i)]);
const cache = new Map();
const exhibitsOf = (i) => {
  if (!cache.has(i)) cache.set(i, read(`exhibits-${i}`));
  return cache.get(i);
};
const bestEmbedded = () => embedded().sort(([, a], [, b]) => falling((a.last || {}).miou, (b.last || {}).miou))[0][0];

const drawMatrices = (place) => {
  if (!embedded().length) {
    place.append(el('p', { class: 'soft' }, 'No run has left exhibits, or none are embedded.'));
    return;
  }
  let chosen = bestEmbedded();
  let large = false;
  const holder = el('div', { class: 'heats' });
  const draw = () => {
    const { distances, confusion, classes, split } = exhibitsOf(chosen);
    const parts = [];
    const distance = (a, b, v) => `${a} to ${b}: ${v === null ? 'no such class' : compact(v)}`;
    const both = [distances.student, distances.teacher].filter(Boolean);
    const top = Math.max(0, ...both.flat(2).filter((v) => v !== null));
    if (distances.student) parts.push(heat('Class distances, student', distances.student, classes, 'rise', 0, top, distance, large));
    if (distances.teacher) parts.push(heat('Class distances, teacher', distances.teacher, classes, 'rise', 0, top, distance, large));
    if (both.length === 2) {
      const difference = distances.student.map((r, i) => r.map((v, j) => (v === null || distances.teacher[i][j] === null ? null : v - distances.teacher[i][j])));
      const far = Math.max(0, ...difference.flat().map(Math.abs)) || 1;
      parts.push(heat('Student minus teacher', difference, classes, 'around', -far, far, distance, large));
    }
    if (confusion) {
      const rows = confusion.map((r) => { const sum = r.reduce((a, b) => a + (b || 0), 0); return r.map((v) => (sum ? (v || 0) / sum : null)); });
      parts.push(heat('Confusion: rows truth, columns prediction', rows, classes, 'rise', 0, 1, (a, b, v) => `${a} taken for ${b}: ${v === null ? 'no such class' : `${percent(v, 1)} % of its pixels`}`, large, Math.sqrt));
    }
    every.hidden = classes.length * LINE <= 300;
    holder.classList.toggle('large', large && !every.hidden);
    holder.replaceChildren(...(parts.length ? parts : [el('p', { class: 'soft' }, 'This run has no matrices.')]));
    holder.setAttribute('aria-label', `On the ${split} split`);
  };
  const every = el('button', { type: 'button', 'aria-pressed': 'false', onclick: () => { large = !large; every.setAttribute('aria-pressed', String(large)); draw(); } }, 'All names');
  place.append(el('div', { class: 'tools' }, choice('Run', exhibitChoices(), chosen, (value) => { chosen = Number(value); draw(); }), every), el('p', { class: 'soft' }, "Distances between the classes' mean features, relative to their mean."), holder);
  draw();
};
