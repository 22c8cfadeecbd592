// Text enters the page by textContent alone, so that no name can become markup.
const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'class') node.className = value;
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};
const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const data = read('table-data');
const body = (id) => document.querySelector(`#${id} .body`);

// Okabe and Ito's colours, without the yellow that no white bears; dashes tell apart what shares a colour.
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c6d31', '#7f7f7f'];
const DASHES = ['', '7 3', '2 3', '9 3 2 3'];
const colour = (i) => COLOURS[i % COLOURS.length];
const dash = (i) => DASHES[Math.floor(i / COLOURS.length) % DASHES.length];

const percent = (value, digits = 2) => (value === null || value === undefined ? '' : (100 * value).toFixed(digits));
const signed = (text) => (text === '' || text.startsWith('-') ? text : `+${text}`);
const compact = (value) => (value === null || value === undefined ? '' : String(Number(value.toPrecision(4))));
const spread = (stat, format = percent) => {
  if (!stat) return '';
  return `${format(stat.mean)}${stat.std === null ? '' : ` ± ${percent(stat.std)}`}`;
};
const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return '';
  return seconds < 1000 ? compact(seconds) : `${Math.floor(seconds / 3600)}:${String(Math.floor(seconds / 60) % 60).padStart(2, '0')} h`;
};
const choice = (label, options, chosen, act) => {
  const select = el('select', { 'aria-label': label, onchange: () => act(select.value) });
  for (const [value, text] of options) {
    const option = el('option', { value }, text);
    option.selected = String(value) === String(chosen);
    select.append(option);
  }
  return el('label', {}, label, select);
};
// Draws a section when it comes near the window, so that opening does not wait for it; and all before printing.
const lazily = (id, draw) => {
  let drawn = false;
  const once = () => {
    if (drawn) return;
    drawn = true;
    draw(body(id));
  };
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      watcher.disconnect();
      once();
    }
  }, { rootMargin: '300px' });
  watcher.observe(document.getElementById(id));
  window.addEventListener('beforeprint', once);
};
