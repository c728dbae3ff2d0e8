"use strict";
// Draws the crystals of the page: balls and sticks on a canvas, turned by dragging.
// Data: {colors, top, best: [crystal], worst: [crystal]}; a crystal has its atoms (color, radius),
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

function draw(canvas, scene, turn, middle, size) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 240;
  canvas.width = canvas.height = width * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const zoom = (0.46 * width) / size;
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

function show(crystal, parent) {
  const card = document.createElement("section");
  card.className = "card";
  const title = document.createElement("h3");
  title.textContent = crystal.title;
  const facts = document.createElement("small");
  facts.textContent = crystal.facts;
  const views = document.createElement("div");
  views.className = "views";
  const frames = ["before", "after"].map((name) => {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${crystal.title}, ${name}`);
    const caption = document.createElement("figcaption");
    caption.textContent = name;
    figure.append(canvas, caption);
    views.append(figure);
    return { canvas, scene: sceneOf(crystal, crystal[name], name === "after"), cell: crystal[name].cell };
  });
  card.append(title, facts, views);
  parent.append(card);
  const extent = (cell, at) => {
    const middle = inCell(cell, [0.5, 0.5, 0.5]);
    return Math.hypot(...add(at, middle.map((m) => -m)));
  };
  const size = Math.max(...frames.flatMap((f) => f.scene.atoms.map((atom) => extent(f.cell, atom.at) + 0.5)));
  let turn = turnAbout(0.35, -0.5);
  const paint = () => frames.forEach((f) => draw(f.canvas, f.scene, turn, inCell(f.cell, [0.5, 0.5, 0.5]), size));
  for (const { canvas } of frames) {
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      turn = times(turnAbout((event.clientY - last[1]) / 90, (event.clientX - last[0]) / 90), turn);
      last = [event.clientX, event.clientY];
      paint();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
  }
  window.addEventListener("resize", paint);
  paint();
}

for (const name of ["best", "worst"]) {
  page[name].forEach((crystal) => show(crystal, document.getElementById(name)));
}
