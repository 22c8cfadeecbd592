const SHOWN_AT_FIRST = 8;
const drawCurves = (place) => {
  const curves = read('curves-data');
  const names = [...new Set(curves.flatMap((run) => Object.keys(run.columns)))].sort();
  if (!names.length) {
    place.append(el('p', { class: 'soft' }, 'No run has left curves.'));
    return;
  }
  let metric = names.includes('val/mIoU') ? 'val/mIoU' : names[0];
  const byHeight = data.groups.map((_, i) => i).sort((a, b) => falling(mean(data.groups[a].last), mean(data.groups[b].last)));
  const shown = new Set(byHeight.slice(0, SHOWN_AT_FIRST));
  const holder = el('div', { class: 'chart' });
  const legend = el('div', { class: 'legend', role: 'group', 'aria-label': 'Groups of runs shown' });
  const lineOf = (i) => (curves[i].columns[metric] ? { steps: curves[i].steps[curves[i].columns[metric][0]], values: curves[i].columns[metric][1] } : null);
  const at = (line, step) => {
    const { steps, values } = line;
    if (step < steps[0] || step > steps[steps.length - 1]) return null;
    let low = 0;
    while (low < steps.length - 2 && steps[low + 1] <= step) low += 1;
    if (steps.length === 1 || steps[low + 1] === steps[low]) return values[low];
    const share = (step - steps[low]) / (steps[low + 1] - steps[low]);
    return values[low] + share * (values[low + 1] - values[low]);
  };
  // Over the steps of all its runs, as long as every one of them has come so far.
  const average = (lines) => {
    if (lines.length === 1) return lines[0];
    const steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    const found = { steps: [], values: [] };
    for (const step of steps) {
      const values = lines.map((line) => at(line, step));
      if (values.every((v) => v !== null)) {
        found.steps.push(step);
        found.values.push(values.reduce((a, b) => a + b) / values.length);
      }
    }
    return found;
  };
  const draw = () => {
    const groups = [...shown].map((g) => ({ g, lines: data.groups[g].runs.map(lineOf).filter(Boolean) })).filter(({ lines }) => lines.length);
    const all = groups.flatMap(({ lines }) => lines);
    if (!all.length) {
      holder.replaceChildren(el('p', { class: 'soft' }, `None of the groups shown has ${metric}.`));
      return;
    }
    const limits = (key) => all.reduce(([low, high], line) => line[key].reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [low, high]), [Infinity, -Infinity]);
    fit(holder);
    const { root, x, y, step } = frame(limits('steps'), limits('values'), `${metric} over optimizer steps`);
    const path = (line) => line.steps.map((s, i) => `${i ? 'L' : 'M'}${x(s).toFixed(1)} ${y(line.values[i]).toFixed(1)}`).join('');
    const stroke = (line, g, width, opacity) => {
      const look = { stroke: colour(g), 'stroke-width': width, 'stroke-opacity': opacity, 'stroke-dasharray': dash(g) };
      if (line.steps.length === 1) root.append(svg('circle', { cx: x(line.steps[0]), cy: y(line.values[0]), r: width + 1, fill: colour(g), 'fill-opacity': opacity }));
      else root.append(svg('path', { d: path(line), ...look }));
    };
    const means = groups.map(({ g, lines }) => ({ g, line: average(lines), n: lines.length }));
    groups.forEach(({ g, lines }) => lines.length > 1 && lines.forEach((line) => stroke(line, g, 1, 0.4)));
    means.forEach(({ g, line }) => line.steps.length && stroke(line, g, 2.2, 1));
    const cursor = svg('line', { class: 'grid', y1: BOX.top, y2: BOX.height - BOX.bottom, visibility: 'hidden' });
    root.append(cursor);
    const tip = el('div', { class: 'tip', hidden: true });
    root.addEventListener('pointermove', (event) => {
      const box = root.getBoundingClientRect();
      const here = ((event.clientX - box.left) / box.width) * BOX.width;
      const s = step(here);
      const rows = means.map(({ g, line, n }) => ({ g, n, value: line.steps.length ? at(line, s) : null })).filter(({ value }) => value !== null).sort((a, b) => b.value - a.value);
      tip.hidden = !rows.length;
      cursor.setAttribute('visibility', rows.length ? 'visible' : 'hidden');
      if (!rows.length) return;
      cursor.setAttribute('x1', here);
      cursor.setAttribute('x2', here);
      tip.replaceChildren(el('b', {}, `step ${Math.round(s)}`), ...rows.slice(0, 12).map(({ g, n, value }) => el('div', {}, `${compact(value)}  ${data.groups[g].label}${n > 1 ? ` (mean of ${n})` : ''}`)));
      const left = event.clientX - box.left;
      tip.style.top = '10px';
      tip.style.left = left < box.width / 2 ? `${left + 12}px` : 'auto';
      tip.style.right = left < box.width / 2 ? 'auto' : `${box.width - left + 12}px`;
    });
    root.addEventListener('pointerleave', () => { tip.hidden = true; cursor.setAttribute('visibility', 'hidden'); });
    holder.replaceChildren(root, tip);
  };
  byHeight.forEach((g) => {
    const swatch = el('span', { class: 'swatch' });
    swatch.style.borderTop = `3px ${dash(g) ? 'dashed' : 'solid'} ${colour(g)}`;
    const button = el('button', { type: 'button', 'aria-pressed': String(shown.has(g)), onclick: () => {
      if (!shown.delete(g)) shown.add(g);
      button.setAttribute('aria-pressed', String(shown.has(g)));
      draw();
    } }, swatch, data.groups[g].label);
    legend.append(button);
  });
  place.append(el('div', { class: 'tools' }, choice('Metric', names.map((n) => [n, n]), metric, (value) => { metric = value; draw(); })), holder, legend, el('p', { class: 'soft' }, 'A thick line is the mean over seeds, thin lines are single runs.'));
  draw();
};
