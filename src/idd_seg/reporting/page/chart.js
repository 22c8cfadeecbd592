const BOX = { width: 900, height: 380, left: 56, right: 14, top: 14, bottom: 34 };
// As wide as its place, so that letters keep their size on a narrow screen.
const fit = (holder) => {
  BOX.width = Math.max(320, Math.min(1000, holder.clientWidth || 900));
  BOX.height = BOX.width < 600 ? 280 : 380;
};
const ticks = (low, high, count = 6) => {
  const raw = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9 && found.length < 30; v += step) found.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return found;
};
// Axes for values between the given limits; x and y turn values into places.
const frame = (xs, ys, label) => {
  const widen = ([low, high]) => (low === high ? [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05] : [low, high]);
  const [x0, x1] = widen(xs);
  const [y0, y1] = widen(ys);
  const x = (v) => BOX.left + ((v - x0) / (x1 - x0)) * (BOX.width - BOX.left - BOX.right);
  const y = (v) => BOX.height - BOX.bottom - ((v - y0) / (y1 - y0)) * (BOX.height - BOX.top - BOX.bottom);
  const root = svg('svg', { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: 'img', 'aria-label': label });
  for (const v of ticks(y0, y1)) root.append(svg('line', { class: 'grid', x1: BOX.left, x2: BOX.width - BOX.right, y1: y(v), y2: y(v) }), svg('text', { x: BOX.left - 6, y: y(v) + 4, 'text-anchor': 'end' }, compact(v)));
  for (const v of ticks(x0, x1, BOX.width / 110)) root.append(svg('text', { x: x(v), y: BOX.height - 12, 'text-anchor': 'middle' }, compact(v)));
  return { root, x, y, step: (place) => x0 + ((place - BOX.left) / (BOX.width - BOX.left - BOX.right)) * (x1 - x0) };
};
