"use strict";
// Draws the crystals of the page: balls and sticks on a canvas, turned and zoomed by pointer or keys.
// Data: {colors, top, best: [crystal], worst: [crystal]}; a crystal has its atoms (symbol, color, radius),
// its bonds [i, j, cell offset (3), expected error], and before/after: {cell, positions}, in Å.
const page = JSON.parse(document.getElementById("structures").textContent);

const turned = (m, v) => m.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
const times = (a, b) => a.map((row) => b[0].map((_, k) => row.reduce((s, x, n) => s + x * b[n][k], 0)));
const add = (a, b) => a.map((x, k) => x + b[k]);
const inCell = (cell, o) => [0, 1, 2].map((k) => o[0] * cell[0][k] + o[1] * cell[1][k] + o[2] * cell[2][k]);

function turnAbout(x, y) {
  const [cx, sx, cy, sy] = [Math.cos(x), Math.sin(x), Math.cos(y), Math.sin(y)];
  return times([[1, 0, 0], [0, cx, -sx], [0, sx, cx]], [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]);
}

function bondColor(error) {
  if (error === null) return "#8a97a5"; // not known
  const place = Math.min(1, error / page.top) * (page.colors.length - 1);
  return page.colors[Math.round(place)];
}

function sceneOf(crystal, frame, isAfter) {
  const { cell, positions } = frame;
  const atoms = positions.map((p, k) => ({ at: p, ...crystal.atoms[k], faint: false }));
  const bonds = crystal.bonds.map(([i, j, a, b, c, error]) => {
    const end = add(positions[j], inCell(cell, [a, b, c]));
    if (a || b || c) atoms.push({ at: end, ...crystal.atoms[j], faint: true });
    return { from: positions[i], to: end, color: isAfter ? bondColor(error) : "#8a97a5" };
  });
  const corner = (k) => inCell(cell, [k & 1, (k >> 1) & 1, (k >> 2) & 1]);
  const edges = [];
  for (let k = 0; k < 8; k++) {
    for (const bit of [1, 2, 4]) if (!(k & bit)) edges.push([corner(k), corner(k | bit)]);
  }
  return { atoms, bonds, edges };
}

function draw(canvas, scene, turn, middle, size, magnified) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 240;
  canvas.width = canvas.height = width * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const zoom = (0.46 * width * magnified) / size;
  const place = (v) => {
    const [x, y, z] = turned(turn, add(v, middle.map((m) => -m)));
    return [width / 2 + zoom * x, width / 2 - zoom * y, z];
  };
  const stroke = (a, b, color, thickness) => {
    pen.strokeStyle = color;
    pen.lineWidth = thickness;
    pen.beginPath();
    pen.moveTo(a[0], a[1]);
    pen.lineTo(b[0], b[1]);
    pen.stroke();
  };
  for (const [a, b] of scene.edges) stroke(place(a), place(b), "#9aa7b3", 1);
  const things = scene.bonds.map((bond) => {
    const [a, b] = [place(bond.from), place(bond.to)];
    return { depth: (a[2] + b[2]) / 2, paint: () => stroke(a, b, bond.color, Math.max(2, 0.18 * zoom)) };
  });
  for (const atom of scene.atoms) {
    const [x, y, z] = place(atom.at);
    things.push({ depth: z, paint: () => {
      pen.globalAlpha = atom.faint ? 0.35 : 1;
      pen.fillStyle = atom.color;
      pen.strokeStyle = "#333b44";
      pen.lineWidth = 0.8;
      pen.beginPath();
      pen.arc(x, y, Math.max(2, 0.42 * atom.radius * zoom), 0, 2 * Math.PI);
      pen.fill();
      pen.stroke();
      pen.globalAlpha = 1;
    } });
  }
  things.sort((a, b) => a.depth - b.depth).forEach((thing) => thing.paint());
}

// A scene with the middle of its atoms, and how far from there they reach.
function framed(scene) {
  const along = [0, 1, 2].map((k) => scene.atoms.map((atom) => atom.at[k]));
  const middle = along.map((values) => (Math.min(...values) + Math.max(...values)) / 2);
  const reach = (atom) => Math.hypot(...add(atom.at, middle.map((m) => -m))) + 0.42 * atom.radius;
  return { scene, middle, size: Math.max(...scene.atoms.map(reach)) };
}

const START = [0.35, -0.5];
const KEYS = { ArrowLeft: [0, -0.15], ArrowRight: [0, 0.15], ArrowUp: [-0.15, 0], ArrowDown: [0.15, 0] };

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Elements by symbol, in the order of the crystal, with their colours; and the buttons that zoom.
function legend(crystal, zoomBy) {
  const row = element("div", "", { class: "elements" });
  const colors = new Map(crystal.atoms.map((atom) => [atom.symbol, atom.color]));
  for (const [symbol, color] of colors) {
    const entry = element("span");
    entry.append(element("i", "", { style: `background: ${color}` }), symbol);
    row.append(entry);
  }
  const zoom = element("span", "", { class: "zoom" });
  for (const [sign, factor, label] of [["+", 1.25, "closer"], ["\u2212", 0.8, "farther"]]) {
    const button = element("button", sign, { type: "button", "aria-label": `${crystal.title}: ${label}` });
    button.addEventListener("click", () => zoomBy(factor));
    zoom.append(button, " ");
  }
  row.append(zoom);
  return row;
}

function show(crystal, parent) {
  const card = element("section", "", { class: "card" });
  const views = element("div", "", { class: "views" });
  const frames = ["before", "after"].map((name) => {
    const figure = element("figure");
    const canvas = element("canvas", "", {
      tabindex: "0", role: "img",
      "aria-label": `${crystal.title}, ${name}; arrow keys turn it, plus and minus zoom, 0 resets`,
    });
    figure.append(canvas, element("figcaption", name));
    views.append(figure);
    return { canvas, ...framed(sceneOf(crystal, crystal[name], name === "after")) };
  });
  const size = Math.max(...frames.map((f) => f.size));
  let turn = turnAbout(...START);
  let magnified = 1;
  const paint = () => frames.forEach((f) =>
    draw(f.canvas, f.scene, turn, f.middle, size, magnified));
  const turnBy = (x, y) => { turn = times(turnAbout(x, y), turn); paint(); };
  const zoomBy = (factor) => { magnified = Math.min(8, Math.max(0.4, magnified * factor)); paint(); };
  card.append(element("h3", crystal.title), element("small", crystal.facts), legend(crystal, zoomBy), views);
  parent.append(card);
  for (const { canvas } of frames) listen(canvas, turnBy, zoomBy, () => {
    turn = turnAbout(...START);
    magnified = 1;
    paint();
  });
  window.addEventListener("resize", paint);
  paint();
}

// One pointer turns and two zoom; a finger that moves up or down scrolls the page.
function listen(canvas, turnBy, zoomBy, reset) {
  const pointers = new Map();
  const apart = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const before = pointers.size === 2 ? apart() : 0;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 2) zoomBy(apart() / Math.max(before, 1));
    else turnBy((event.clientY - last[1]) / 90, (event.clientX - last[0]) / 90);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;  // without them the wheel scrolls the page
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.key in KEYS) turnBy(...KEYS[event.key]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.25);
    else if (event.key === "-") zoomBy(0.8);
    else if (event.key === "0") reset();
    else return;
    event.preventDefault();
  });
}

for (const name of ["best", "worst"]) {
  page[name].forEach((crystal) => show(crystal, document.getElementById(name)));
}
