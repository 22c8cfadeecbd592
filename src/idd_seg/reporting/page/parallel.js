const drawParallel = (place) => {
  const lines = data.groups.map((group, i) => ({ i, group, miou: mean(group.last) })).filter(({ miou }) => miou !== null);
  if (!data.axes.length || lines.length < 2) {
    place.append(el('p', { class: 'soft' }, 'Nothing to compare: fewer than two groups with a mIoU, or no option differs.'));
    return;
  }
  const all = [...data.axes.slice(0, 10).map(({ key, label }) => ({ label, of: ({ group }) => (key in group.options ? group.options[key] : null) })), { label: 'mIoU, %', of: ({ miou }) => 100 * miou }];
  const axes = all.map((axis) => {
    const values = lines.map(axis.of);
    const present = values.filter((v) => v !== null);
    const numeric = present.length > 0 && present.every((v) => typeof v === 'number');
    const known = [...new Set(present)].sort(compare);
    const low = numeric ? Math.min(...present) : 0;
    const high = numeric ? Math.max(...present) : Math.max(0, known.length - 1);
    const share = (v) => (v === null ? null : high === low ? 0.5 : ((numeric ? v : known.indexOf(v)) - low) / (high - low));
    // Values that would be written over each other give way to a scale.
    const apart = known.every((v, i) => i === 0 || (v - known[i - 1]) / (high - low) > 0.05);
    const marks = numeric && !(known.length <= 8 && apart) ? ticks(low, high, 5) : known;
    const text = (s) => (numeric ? compact(low + s * (high - low)) : String(known[Math.round(s * high)]));
    return { ...axis, share, marks, text, range: [0, 1] };
  });
  const W = Math.max(900, axes.length * 120);
  const H = 360;
  const x = (k) => 70 + (k * (W - 140)) / (axes.length - 1);
  const y = (share) => H - 20 - share * (H - 75);
  const root = svg('svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': 'Parallel coordinates: a line a group of runs, an axis an option' });
  root.style.minWidth = `${Math.min(W, axes.length * 110)}px`;
  const miouAxis = axes[axes.length - 1];
  const drawn = lines.map((line) => {
    const points = axes.map((axis, k) => [x(k), axis.share(axis.of(line))]).filter(([, s]) => s !== null).map(([px, s]) => `${px.toFixed(1)},${y(s).toFixed(1)}`).join(' ');
    const node = svg('polyline', { points, stroke: rgb(shade('both', miouAxis.share(miouAxis.of(line)))), 'stroke-width': 1.8 }, svg('title', {}, `${line.group.label}: ${spread(line.group.last)}`));
    root.append(node);
    return { line, node };
  });
  const count = el('output', { 'aria-live': 'polite' });
  const inputs = [];
  const bands = [];
  const update = () => {
    let inside = 0;
    for (const { line, node } of drawn) {
      const kept = axes.every((axis) => {
        const s = axis.share(axis.of(line));
        const whole = axis.range[0] <= 0 && axis.range[1] >= 1;
        return whole || (s !== null && s >= axis.range[0] - 1e-9 && s <= axis.range[1] + 1e-9);
      });
      inside += kept;
      node.setAttribute('stroke-opacity', kept ? '0.9' : '0.08');
    }
    axes.forEach((axis, k) => {
      const [low, high] = axis.range;
      const whole = low <= 0 && high >= 1;
      bands[k].setAttribute('y', y(high));
      bands[k].setAttribute('height', whole ? 0 : Math.max(2, y(low) - y(high)));
      [low, high].forEach((v, side) => { inputs[k][side].value = String(v); inputs[k][side].setAttribute('aria-valuetext', axis.text(v)); });
    });
    count.textContent = `${inside} of ${drawn.length} groups within the ranges`;
  };
  const cut = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);
  axes.forEach((axis, k) => {
    const head = svg('text', { x: x(k), y: k % 2 ? 34 : 16, 'text-anchor': 'middle', 'font-weight': '600' }, cut(axis.label));
    head.append(svg('title', {}, axis.label));
    root.append(svg('line', { class: 'grid', x1: x(k), x2: x(k), y1: y(0), y2: y(1) }), head);
    for (const mark of axis.marks) root.append(svg('text', { x: x(k) + 5, y: y(axis.share(mark)) + 4, 'font-size': 11 }, cut(typeof mark === 'number' ? compact(mark) : String(mark))));
    const band = svg('rect', { x: x(k) - 9, width: 18, y: y(1), height: 0, fill: COLOURS[0], 'fill-opacity': 0.35 });
    const grip = svg('rect', { x: x(k) - 16, width: 32, y: y(1) - 8, height: y(0) - y(1) + 16, fill: 'transparent', cursor: 'ns-resize' });
    let start = null;
    const where = (event) => { const box = root.getBoundingClientRect(); return Math.max(0, Math.min(1, (y(0) - ((event.clientY - box.top) / box.height) * H) / (y(0) - y(1)))); };
    grip.addEventListener('pointerdown', (event) => { start = where(event); grip.setPointerCapture(event.pointerId); });
    grip.addEventListener('pointermove', (event) => { if (start !== null) { const now = where(event); axis.range = [Math.min(start, now), Math.max(start, now)]; update(); } });
    grip.addEventListener('pointerup', () => { if (axis.range[1] - axis.range[0] < 0.02) { axis.range = [0, 1]; update(); } start = null; });
    root.append(band, grip);
    bands.push(band);
    inputs.push([0, 1].map((side) => {
      const input = el('input', { type: 'range', min: '0', max: '1', step: '0.01', value: String(side), 'aria-label': `${axis.label}: ${side ? 'highest' : 'lowest'}`, oninput: () => {
        axis.range[side] = Number(input.value);
        if (axis.range[0] > axis.range[1]) axis.range[1 - side] = axis.range[side];
        update();
      } });
      return input;
    }));
  });
  const clear = el('button', { type: 'button', onclick: () => { axes.forEach((axis) => { axis.range = [0, 1]; }); update(); } }, 'Clear ranges');
  const ranges = el('details', {}, el('summary', {}, 'Ranges by keyboard'), el('div', { class: 'ranges' }, ...axes.map((axis, k) => el('fieldset', {}, el('legend', {}, axis.label), ...inputs[k]))));
  place.append(el('p', { class: 'soft' }, 'Drag along an axis to keep the lines that pass there; a click frees it.'), el('div', { class: 'scroll chart', tabindex: '0', role: 'region', 'aria-label': 'Parallel coordinates' }, root), el('div', { class: 'tools' }, clear, count), ranges);
  update();
};
