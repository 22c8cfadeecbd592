// A legend: words and their colours.
const legendOf = (label, entries) => el('ul', { class: 'key', 'aria-label': label }, ...entries.map(([name, c]) => {
  const swatch = el('span');
  swatch.style.background = rgb(c);
  return el('li', {}, swatch, name);
}));
// Of the classes that are shown.
const classKey = ({ classes, palette }, shown) => legendOf('Colours of the classes', shown.filter((i) => i < palette.length).map((i) => [classes[i], palette[i]]));
const drawSlider = (place) => {
  const having = embedded().filter(([i]) => exhibitsOf(i).samples.length);
  if (!having.length) {
    place.append(el('p', { class: 'soft' }, 'No run has left pictures, or none are embedded.'));
    return;
  }
  let run = having.some(([i]) => i === bestEmbedded()) ? bestEmbedded() : having[0][0];
  let sample = 0;
  let sides = ['truth', 'student'];
  let shown = [];
  const tools = el('div', { class: 'tools' });
  const holder = el('div');
  const twinOf = (i) => {
    if (data.runs[i].twin !== undefined) return data.runs[i].twin;
    const group = data.groups.find((g) => g.runs.includes(i));
    return group.twin === null ? undefined : data.groups[group.twin].runs.find((r) => data.runs[r].exhibits);
  };
  const pictures = () => {
    const own = exhibitsOf(run).samples[sample];
    const found = { image: own.image, truth: own.truth, student: own.student, teacher: own.teacher };
    const twin = twinOf(run);
    const same = twin !== undefined && data.runs[twin].exhibits ? exhibitsOf(twin).samples.find((s) => s.name === own.name) : undefined;
    if (same) found.twin = same.student;
    shown = [...new Set([...own.shown, ...(same ? same.shown : [])])].sort((a, b) => a - b);
    return Object.fromEntries(Object.entries(found).filter(([, uri]) => uri));
  };
  const draw = () => {
    const kinds = pictures();
    const names = Object.keys(kinds);
    sides = sides.map((side, k) => (names.includes(side) ? side : names[Math.min(k, names.length - 1)]));
    const samples = exhibitsOf(run).samples.map((s, i) => [i, s.name]);
    const redraw = (act) => (value) => { const label = document.activeElement.parentNode && document.activeElement.parentNode.firstChild.textContent; act(value); draw(); const again = [...tools.querySelectorAll('label')].find((l) => l.firstChild.textContent === label); if (again) again.lastChild.focus(); };
    tools.replaceChildren(
      choice('Run', having.map(([i]) => [i, labelOf(i)]), run, redraw((v) => { run = Number(v); sample = 0; })),
      choice('Sample', samples, sample, redraw((v) => { sample = Number(v); })),
      choice('Left', names.map((n) => [n, n]), sides[0], redraw((v) => { sides[0] = v; })),
      choice('Right', names.map((n) => [n, n]), sides[1], redraw((v) => { sides[1] = v; })),
    );
    const right = el('img', { src: kinds[sides[1]], alt: `${sides[1]} of ${samples[sample][1]}` });
    const left = el('img', { src: kinds[sides[0]], alt: `${sides[0]} of ${samples[sample][1]}` });
    const edge = el('div', { class: 'edge' });
    const range = el('input', { type: 'range', min: '0', max: '100', value: '50', 'aria-label': 'Share of the left picture', oninput: () => move() });
    const move = () => {
      left.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`;
      edge.style.left = `calc(${range.value}% - 1px)`;
      range.setAttribute('aria-valuetext', `${range.value} % ${sides[0]}`);
    };
    const slide = el('div', { class: 'slide' }, right, left, edge);
    const drag = (event) => {
      if (event.type === 'pointermove' && !event.buttons) return;
      const box = slide.getBoundingClientRect();
      range.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
      move();
    };
    slide.addEventListener('pointerdown', drag);
    slide.addEventListener('pointermove', drag);
    slide.addEventListener('dragstart', (event) => event.preventDefault());
    holder.replaceChildren(slide, range, classKey(exhibitsOf(run), shown));
    move();
  };
  place.append(tools, holder);
  draw();
};
