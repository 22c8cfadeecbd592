// Single pictures with their masks and where these are wrong: the worst, and those that changed most against the twin.
const KINDS = ['image', 'truth', 'teacher', 'twin', 'student', 'errors'];
const HEADINGS = { worst: 'Worst', improved: 'Most improved against the twin', worsened: 'Most worsened against the twin' };

const drawCases = (place) => {
  const having = embedded().filter(([i]) => exhibitsOf(i).cases && Object.keys(exhibitsOf(i).cases.pictures).length);
  if (!having.length) {
    place.append(el('p', { class: 'soft' }, 'No run has left scored pictures, or none are embedded.'));
    return;
  }
  let run = [...having].sort(([, a], [, b]) => falling((a.last || {}).miou, (b.last || {}).miou))[0][0];
  const holder = el('div');
  const figureOf = (name, picture) => {
    const kinds = KINDS.filter((kind) => picture[kind]);
    const change = picture.miou.twin === undefined ? '' : `${signed(percent(picture.miou.student - picture.miou.twin, 1))} points`;
    const counted = picture.miou.twin === undefined ? `${percent(picture.lost, 1)} % of the pixels wrong` : `${percent(picture.won, 1)} % of the pixels won, ${percent(picture.lost, 1)} % lost`;
    const mious = ['teacher', 'twin', 'student'].filter((kind) => picture.miou[kind] !== undefined).map((kind) => `${kind} ${percent(picture.miou[kind], 1)} %`);
    const cells = kinds.map((kind) => el('div', {}, el('img', { src: picture[kind], alt: `${kind} of ${name}` }), el('div', { class: 'soft' }, kind)));
    return el('figure', { class: 'case' }, el('figcaption', {}, el('b', {}, name), ` mIoU: ${[mious.join(', '), change, counted].filter(Boolean).join('; ')}`), el('div', { class: 'strip' }, ...cells));
  };
  const draw = () => {
    const found = exhibitsOf(run);
    const { chosen, pictures, scored, of, split } = found.cases;
    const two = Object.values(pictures).some((picture) => picture.twin);
    const shown = [...new Set(Object.values(pictures).flatMap((picture) => picture.shown))].sort((a, b) => a - b);
    const parts = Object.entries(HEADINGS).filter(([kind]) => chosen[kind] && chosen[kind].length).flatMap(([kind, title]) => [el('h3', {}, title), ...chosen[kind].map((name) => figureOf(name, pictures[name]))]);
    const many = of === null || of === scored ? `all ${scored} pictures` : `${scored} pictures spread over the ${of}`;
    holder.replaceChildren(
      el('p', { class: 'soft' }, `Of ${many} of the split ${split}. A picture's mIoU is the mean over the classes in its truth or its mask.`),
      legendOf('Colours of the errors', data.errors[two ? 'two' : 'one']),
      ...parts,
      classKey(found, shown),
    );
  };
  place.append(el('div', { class: 'tools' }, choice('Run', having.map(([i]) => [i, labelOf(i)]), run, (value) => { run = Number(value); draw(); })), holder);
  draw();
};
