// Curves on a canvas: several lines with bands, marks on the time line, zoom by dragging, one PNG of what is shown.

const LIGHT = ["#3730a3", "#b45309", "#0f766e", "#be185d", "#4d7c0f", "#1d4ed8", "#7c2d12", "#6b21a8"];
const DARK = ["#b4bcff", "#fbbf24", "#5eead4", "#f9a8d4", "#bef264", "#93c5fd", "#fdba74", "#d8b4fe"];
const MARKS = { alarm: "#dc2626", finding: "#d97706", stage: "#2563eb", reset: "#9333ea", restart: "#6b7280", evaluation: "#059669" };
const LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20;

export const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
export const color = (k) => (dark() ? DARK : LIGHT)[k % LIGHT.length];
export const markColor = (kind) => MARKS[kind] ?? MARKS.restart;

/** lines: [{name, points: [[x, y]], band: [[x, low, high]]}]; marks: [{step, kind, text}]; range: [from, to] or null. */
export function draw(canvas, { lines, marks = [], range = null }) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth || 360, height = canvas.clientHeight || 176;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  pen.fillStyle = style.getPropertyValue("--card").trim() || "#fff";
  pen.fillRect(0, 0, width, height);
  const inside = (x) => !range || (x >= range[0] && x <= range[1]);
  const points = lines.flatMap((line) => line.points.filter(([x, y]) => inside(x) && Number.isFinite(y)));
  const soft = style.getPropertyValue("--soft").trim();
  pen.font = "11px system-ui, sans-serif";
  if (!points.length) {
    pen.fillStyle = soft;
    pen.fillText("nothing yet", LEFT, height / 2);
    return null;
  }
  const bands = lines.flatMap((line) => (line.band ?? []).filter(([x]) => inside(x)).flatMap(([, low, high]) => [low, high]));
  const [x0, x1] = range ?? bounds(points.map(([x]) => x));
  const [y0, y1] = padded(bounds([...points.map(([, y]) => y), ...bands]));
  const px = (x) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (width - LEFT - RIGHT);
  const py = (y) => height - BOTTOM - ((y - y0) / (y1 - y0 || 1)) * (height - TOP - BOTTOM);
  axes(pen, style, soft, { width, height, x0, x1, y0, y1, py });
  for (const mark of marks.filter(({ step }) => inside(step) && step >= x0 && step <= x1)) {
    pen.strokeStyle = markColor(mark.kind);
    pen.globalAlpha = 0.55;
    pen.setLineDash([3, 3]);
    stroke(pen, [[px(mark.step), TOP], [px(mark.step), height - BOTTOM]]);
    pen.setLineDash([]);
    pen.globalAlpha = 1;
  }
  lines.forEach((line, k) => {
    pen.strokeStyle = pen.fillStyle = color(line.color ?? k);
    const band = (line.band ?? []).filter(([x]) => inside(x));
    if (band.length > 1) {
      pen.globalAlpha = 0.18;
      pen.beginPath();
      band.forEach(([x, low]) => pen.lineTo(px(x), py(low)));
      band.toReversed().forEach(([x, , high]) => pen.lineTo(px(x), py(high)));
      pen.fill();
      pen.globalAlpha = 1;
    }
    pen.lineWidth = 1.5;
    const known = line.points.filter(([x, y]) => inside(x) && Number.isFinite(y)).map(([x, y]) => [px(x), py(y)]);
    if (known.length === 1) pen.fillRect(known[0][0] - 2, known[0][1] - 2, 4, 4);
    else stroke(pen, known);
  });
  return { toX: (pixel) => x0 + ((pixel - LEFT) / (width - LEFT - RIGHT)) * (x1 - x0), x0, x1 };
}

function axes(pen, style, soft, { width, height, x0, x1, y0, y1, py }) {
  pen.strokeStyle = style.getPropertyValue("--line").trim();
  pen.fillStyle = soft;
  pen.lineWidth = 1;
  for (const y of [y0, (y0 + y1) / 2, y1]) {
    stroke(pen, [[LEFT, py(y)], [width - RIGHT, py(y)]]);
    pen.textAlign = "right";
    pen.fillText(short(y), LEFT - 5, py(y) + 4);
  }
  pen.textAlign = "left";
  pen.fillText(`step ${short(x0)}`, LEFT, height - 5);
  pen.textAlign = "right";
  pen.fillText(short(x1), width - RIGHT, height - 5);
  pen.textAlign = "left";
}

function stroke(pen, points) {
  pen.beginPath();
  points.forEach(([x, y]) => pen.lineTo(x, y));
  pen.stroke();
}

const short = (value) => (Math.abs(value) >= 10_000 ? value.toExponential(1) : String(Number(value.toPrecision(3))));

function bounds(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function padded([low, high]) {
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.1;
  return [low - room, high + room];
}

/** Dragging chooses a range of steps; `chosen` gets it, or null after a double click. */
export function zoomable(canvas, scale, chosen) {
  let from = null;
  canvas.addEventListener("pointerdown", (event) => { from = event.offsetX; });
  canvas.addEventListener("pointerup", (event) => {
    const now = scale();
    if (now && from !== null && Math.abs(event.offsetX - from) > 8) {
      const [low, high] = [from, event.offsetX].map(now.toX).sort((a, b) => a - b);
      chosen([Math.max(Math.floor(low), now.x0), Math.min(Math.ceil(high), now.x1)]);
    }
    from = null;
  });
  canvas.addEventListener("dblclick", () => chosen(null));
}
