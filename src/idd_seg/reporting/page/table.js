const stateText = (states) => Object.entries(states).map(([name, n]) => (Object.keys(states).length + n > 2 ? `${n} ${name}` : name)).join(', ');
const mean = (stat) => (stat ? stat.mean : null);
// Heading, its explanation, the value that sorts, the text of a group, the text of a run.
const COLUMNS = [
  ['n', 'runs with a mIoU', (g) => (g.last ? g.last.n : 0), (g) => String(g.last ? g.last.n : 0), () => ''],
  ['mIoU, %', 'after the last step, on the validation split: mean ± sample standard deviation', (g) => mean(g.last), (g) => spread(g.last), (r) => percent(r.last && r.last.miou)],
  ['best, %', 'the highest mIoU of all validations', (g) => mean(g.best), (g) => spread(g.best), (r) => percent(r.best)],
  ['gain', 'mIoU above the twin, which learns from labels alone, in percentage points; paired by seed unless marked', (g) => mean(g.gain), (g) => spread(g.gain, (v) => signed(percent(v))) + unmatched(g), (r) => signed(percent(r.gain))],
  ['gap closed, %', 'gain as a share of what lies between twin and teacher', (g) => mean(g.gap), (g) => (g.gap ? percent(g.gap.mean, 0) : ''), () => ''],
  ['teacher, %', "the teacher's mIoU", (g) => g.teacher, (g) => percent(g.teacher), () => ''],
  ['parameters', 'of the student', (g) => g.parameters, (g) => (g.parameters === null ? '' : Math.round(g.parameters).toLocaleString('en')), (r) => (r.parameters === null ? '' : Math.round(r.parameters).toLocaleString('en'))],
  ['seconds', 'of training', (g) => g.seconds, (g) => duration(g.seconds), (r) => duration(r.seconds)],
  ['images/s', 'in training, median', (g) => g.speed, (g) => compact(g.speed), (r) => compact(r.speed)],
  ['state', 'how the runs ended', (g) => stateText(g.states), (g) => stateText(g.states), (r) => r.state],
];
// How many of the runs have a partner of the same seed, where it is not all.
const unmatched = (g) => {
  if (!g.gain) return '';
  if (!g.paired) return ' unpaired';
  return g.gain.n < g.last.n ? ` of ${g.gain.n}` : '';
};
const compare = (a, b) => {
  const empty = (v) => v === null || v === undefined || v === '';
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  return typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b;
};
// From high to low; what has no value comes last either way.
const falling = (a, b) => {
  const empty = (v) => v === null || v === undefined;
  return empty(a) || empty(b) ? compare(a, b) : compare(b, a);
};

const copy = async (text, button) => {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without the clipboard's permission the old way still works on a page from a file.
    const area = el('textarea', {}, text);
    document.body.append(area);
    area.select();
    done = document.execCommand('copy');
    area.remove();
    button.focus();
  }
  button.textContent = done ? 'Copied' : 'Not allowed: select the text';
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
};

const runRows = (run) => {
  const first = el('td', {}, el('div', {}, `${run.seed === null ? '' : `seed ${run.seed}: `}${run.name}`));
  const details = el('div', { class: 'details' });
  if (run.error) details.append(el('p', { class: 'bad' }, run.error));
  for (const note of run.notes) details.append(el('p', { class: 'soft' }, note));
  if (run.command) {
    const button = el('button', { type: 'button', 'aria-label': 'Copy the command of this run', onclick: () => copy(run.command, button) }, 'Copy');
    details.append(el('code', {}, run.command), button);
  }
  const row = el('tr', { class: 'run' }, first, ...COLUMNS.map(([, , , , text]) => el('td', { class: text(run) === 'failed' ? 'bad' : '' }, text(run))));
  return details.children.length ? [row, el('tr', { class: 'more' }, el('td', { colspan: COLUMNS.length + 1 }, details))] : [row];
};

// In which options a group differs from others.
const optionsOf = (group) => data.axes.filter(({ key }) => key in group.options).map(({ key, label }) => `${label}=${typeof group.options[key] === 'number' ? compact(group.options[key]) : group.options[key]}`).join(', ');
const groupRow = (group, index) => {
  const rows = [];
  const plus = el('button', { type: 'button', class: 'plus', 'aria-expanded': 'false', 'aria-label': `Runs of ${group.label}` }, '+');
  const twin = group.twin === null ? null : el('div', { class: 'soft' }, `twin: ${data.groups[group.twin].label}`);
  const unwell = Object.keys(group.states).some((name) => name !== 'finished');
  const options = optionsOf(group);
  const name = el('td', { title: options }, plus, group.label, options ? el('details', {}, el('summary', {}, 'options'), options) : null, twin);
  const row = el('tr', { class: 'group', 'data-group': index }, name, ...COLUMNS.map(([title, , , text]) => el('td', { class: title === 'state' && unwell ? 'bad' : '' }, text(group))));
  plus.addEventListener('click', () => {
    const open = plus.getAttribute('aria-expanded') === 'true';
    plus.setAttribute('aria-expanded', String(!open));
    plus.textContent = open ? '+' : '−';
    if (open) rows.splice(0).forEach((r) => r.remove());
    else {
      rows.push(...group.runs.flatMap((i) => runRows(data.runs[i])));
      row.after(...rows);
    }
  });
  return { group, row, all: () => [row, ...rows] };
};

const drawTable = (place) => {
  const tbody = el('tbody');
  const entries = data.groups.map(groupRow);
  const heads = [];
  const sort = (value, head, first) => {
    const down = head.getAttribute('aria-sort') ? head.getAttribute('aria-sort') === 'ascending' : first === 'descending';
    heads.forEach((other) => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    entries.sort((a, b) => (down ? falling : compare)(value(a.group), value(b.group)));
    tbody.append(...entries.flatMap((entry) => entry.all()));
  };
  const head = (title, why, value, first) => {
    const cell = el('th', { scope: 'col' });
    cell.append(el('button', { type: 'button', title: why, onclick: () => sort(value, cell, first) }, title));
    heads.push(cell);
    return cell;
  };
  const thead = el('thead', {}, el('tr', {}, head('run', 'the name or folder; below it the options that differ', (g) => g.label, 'ascending'), ...COLUMNS.map(([title, why, value]) => head(title, why, value, title === 'state' ? 'ascending' : 'descending'))));
  sort(COLUMNS[1][2], heads[2], 'descending');
  const all = el('button', { type: 'button', onclick: () => {
    const closed = [...tbody.querySelectorAll('.plus[aria-expanded=false]')];
    (closed.length ? closed : [...tbody.querySelectorAll('.plus')]).forEach((button) => button.click());
  } }, 'Show or hide single runs');
  place.append(el('div', { class: 'tools' }, all), el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table of runs' }, el('table', {}, thead, tbody)));
};
