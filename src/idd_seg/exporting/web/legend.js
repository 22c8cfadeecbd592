// The list of the classes: what is there first, by its share; and what lies under the pointer.
const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

const swatch = (index) => {
  const node = document.createElement('span');
  node.className = 'swatch';
  node.style.background = css(model.palette[index]);
  return node;
};

const legend = (() => {
  let alone = null; // the class that is shown without the others
  const rows = model.names.map((name, index) => {
    const row = document.createElement('li');
    const button = document.createElement('button');
    const label = document.createElement('span');
    const share = document.createElement('span');
    button.type = 'button';
    button.setAttribute('aria-pressed', 'false');
    label.className = 'name';
    label.textContent = name;
    share.className = 'share';
    button.append(swatch(index), label, share);
    button.addEventListener('click', () => press(index));
    row.append(button);
    return { row, button, share };
  });
  const press = (index) => {
    alone = alone === index ? null : index;
    rows.forEach(({ button }, i) => button.setAttribute('aria-pressed', String(i === alone)));
    view.paint();
  };
  // Rows move only where that is asked for: under a running camera they would jump.
  const update = (counts, total, reorder) => {
    rows.forEach(({ row, share }, index) => {
      const part = total ? (100 * counts[index]) / total : 0;
      row.classList.toggle('absent', total > 0 && counts[index] === 0);
      share.textContent = counts[index] ? `${part < 0.1 ? '< 0.1' : part.toFixed(1)} %` : '';
    });
    if (reorder) {
      const order = rows.map((_, index) => index).sort((a, b) => counts[b] - counts[a] || a - b);
      byId('legend').append(...order.map((index) => rows[index].row));
    }
  };
  const mark = (index) => rows.forEach(({ button }, i) => button.classList.toggle('here', i === index));
  byId('legend').append(...rows.map(({ row }) => row));
  return { update, mark, isAlone: (index) => alone === null || alone === index };
})();
