const drawBars = (place) => {
  const having = data.groups.map((group, i) => [i, group.label]).filter(([i]) => data.groups[i].runs.some((r) => data.runs[r].last && Object.keys(data.runs[r].last.iou).length));
  if (!having.length) {
    place.append(el('p', { class: 'soft' }, 'No run has left the IoU of classes.'));
    return;
  }
  const byHeight = having.map(([i]) => i).sort((a, b) => falling(mean(data.groups[a].last), mean(data.groups[b].last)));
  // The best that has a twin to stand beside it.
  const best = byHeight.find((i) => data.groups[i].twin !== null) ?? byHeight[0];
  const other = having.map(([i]) => i).find((i) => i === data.groups[best].twin);
  const chosen = [best, other === undefined ? '' : other];
  const ious = (g) => {
    const sums = new Map();
    for (const r of data.groups[g].runs) for (const [name, v] of Object.entries((data.runs[r].last || { iou: {} }).iou)) sums.set(name, [...(sums.get(name) || []), v]);
    return new Map([...sums].map(([name, values]) => [name, values.reduce((a, b) => a + b) / values.length]));
  };
  const holder = el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'IoU of each class' });
  const draw = () => {
    const shown = chosen.filter((g) => g !== '').map((g) => ious(Number(g)));
    const grid = el('div', { class: 'bars' });
    for (const name of new Set(shown.flatMap((m) => [...m.keys()]))) {
      const bars = shown.map((m, i) => {
        const value = m.get(name);
        const fill = el('div', { class: 'fill' });
        fill.style.width = `${Math.max(0, Math.min(100, 100 * (value || 0)))}%`;
        fill.style.background = colour(i);
        return el('div', { class: 'bar' }, el('div', { class: 'track' }, fill), el('span', { class: 'n' }, value === undefined ? 'none' : percent(value, 1)));
      });
      grid.append(el('div', {}, name), el('div', {}, ...bars));
    }
    holder.replaceChildren(grid);
  };
  const pick = (slot, label, none) => choice(label, [...(none ? [['', 'nothing']] : []), ...having], chosen[slot], (value) => { chosen[slot] = value; draw(); });
  place.append(el('div', { class: 'tools' }, pick(0, 'Blue', false), pick(1, 'Orange', true)), holder, el('p', { class: 'soft' }, 'Percent, after the last step, mean over seeds.'));
  draw();
};
