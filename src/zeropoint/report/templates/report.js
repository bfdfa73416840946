"use strict";
// Sorts and searches tables, draws charts, and opens tensors. What comes from a network reaches the page as text only.
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const element = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
  const parsed = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
  const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4)));

  // --- tables ---

  const OTHER = { ascending: "descending", descending: "ascending" };
  const collator = new Intl.Collator("en", { numeric: true });

  // A number where the column has numbers (NaN: none, which comes last in either order), else the text.
  const key = (row, column) => {
    const cell = row.cells[column];
    return "number" in cell.dataset ? (cell.dataset.number === "" ? NaN : Number(cell.dataset.number)) : cell.textContent;
  };

  const compare = (a, b, sign) => {
    const missing = Number(Number.isNaN(a) || a === "") - Number(Number.isNaN(b) || b === "");
    if (missing || Number.isNaN(a)) return missing;
    return sign * (typeof a === "number" && typeof b === "number" ? (a > b) - (a < b) : collator.compare(a, b));
  };

  const sort = (table, header) => {
    const current = header.getAttribute("aria-sort");
    const order = current === "none" ? header.firstElementChild.dataset.first : OTHER[current];
    for (const other of all("th", table.tHead)) other.setAttribute("aria-sort", other === header ? order : "none");
    const sign = order === "ascending" ? 1 : -1;
    const keyed = [...table.tBodies[0].rows].map((row, place) => [key(row, header.cellIndex), place, row]);
    keyed.sort((a, b) => compare(a[0], b[0], sign) || a[1] - b[1]);
    table.tBodies[0].append(...keyed.map((entry) => entry[2]));
  };

  for (const table of all("table[data-sortable]"))
    for (const header of all("th", table.tHead)) header.firstElementChild.addEventListener("click", () => sort(table, header));

  for (const field of all("input[data-search]")) {
    const rows = [...document.getElementById(field.dataset.search).tBodies[0].rows];
    const told = document.querySelector(`[data-found="${field.dataset.search}"]`);
    const texts = new Map(rows.map((row) => [row, [...row.cells].map((cell) => `${cell.textContent} ${cell.title}`).join(" ").toLowerCase()]));
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !words.every((word) => texts.get(row).includes(word));
      const shown = rows.filter((row) => !row.hidden).length;
      told.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    });
  }

  // --- charts ---

  // Vega takes a number for the width: where charts stand above each other, "container" would not do.
  const narrowed = (spec, width) => ({ ...spec, width, ...(spec.vconcat && { vconcat: spec.vconcat.map((part) => ({ ...part, width })) }) });
  const drawings = new Map();

  const draw = async (place, spec, datasets = {}) => {
    drawings.set(place, [spec, datasets]);
    const fitted = { ...narrowed(spec, Math.max(160, place.clientWidth - 96)), datasets: { ...spec.datasets, ...datasets } };
    place._view?.finalize();
    place._view = await window.vegaEmbed(place, fitted, { actions: false, renderer: "svg", ast: true });
  };

  for (const place of all("[data-chart]")) draw(place, parsed(place.dataset.chart));

  let waiting = 0;
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (width === window.innerWidth) return; // a phone's bars come and go
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => drawings.forEach(([spec, datasets], place) => draw(place, spec, datasets)), 150);
  });

  // --- tensors ---

  const panel = document.getElementById("tensor");
  const found = parsed("tensor-data");
  if (!panel || !found) return;
  const { tensors, layers, specs } = found;
  const part = (name) => panel.querySelector(`[data-part="${name}"]`);
  const place = part("chart");

  // The bins of a histogram as rectangles, cut where the chosen range ends.
  const bins = (tensor) => {
    const [start, end] = tensor.extent;
    const step = (end - start) / tensor.counts.length;
    const [lo, hi] = tensor.range ?? [start, end];
    return tensor.counts.flatMap((count, i) => {
      if (!count) return [];
      const edges = [start + i * step, ...[lo, hi].filter((cut) => cut > start + i * step && cut < start + (i + 1) * step), start + (i + 1) * step];
      return edges.slice(1).map((x2, j) => ({ x: edges[j], x2, count, least: 0.5, clipped: edges[j] >= hi || x2 <= lo }));
    });
  };

  const distribution = (tensor) => {
    const [start, end] = tensor.extent;
    const fits = (value) => Math.min(Math.max(value, start), end);
    const ranges = tensor.thresholds.map(([solver, lo, hi, chosen]) => ({ solver, lo, hi, x: fits(lo), x2: fits(hi), chosen }));
    const ends = (tensor.range ?? []).filter((x) => x >= start && x <= end).map((x) => ({ x }));
    return { bins: bins(tensor), ranges, ends };
  };

  const channels = (tensor) => ({
    channels: ["float", "quantized"].flatMap((when) =>
      tensor[when].map(([lo, hi], i) => {
        const half = when === "float" ? 0.42 : 0.2;
        return { when, channel: i * tensor.every, lo: lo * tensor.unit, hi: hi * tensor.unit, x: (i - half) * tensor.every, x2: (i + half) * tensor.every };
      }),
    ),
  });

  const show = (index) => {
    const tensor = tensors[index];
    part("name").textContent = tensor.name;
    part("facts").replaceChildren(...tensor.facts.map(([name, value]) => {
        const fact = element("div", "", value.length > 40 ? "wide" : "");
        fact.append(element("dt", name), element("dd", value));
        return fact;
      }));
    part("beyond").textContent = tensor.told;
    for (const button of all("button", part("tabs"))) button.setAttribute("aria-pressed", String(button.dataset.index === String(index)));
    part("choice").value = String(index);
    panel.hidden = false; // before anything is drawn: what is hidden has no width
    place.hidden = !(tensor.counts || tensor.float);
    place.setAttribute("aria-label", `${tensor.name}: ${tensor.told}`);
    if (tensor.counts) draw(place, specs.distribution, distribution(tensor));
    else if (tensor.float) draw(place, specs.channels, channels(tensor));
    else {
      drawings.delete(place);
      place.replaceChildren();
    }
  };

  const tabs = (layer) => {
    part("layer").textContent = layer ? `${layer.operator} ${layer.name}` : "";
    part("tabs").replaceChildren(
      ...(layer ? layer.tensors : []).map(([role, index]) => {
        const button = Object.assign(element("button", role), { type: "button", title: tensors[index].name });
        button.dataset.index = index;
        button.addEventListener("click", () => show(index));
        return button;
      }),
    );
  };

  let opener = null;
  const openLayer = (row) => {
    for (const other of all("tr.opened")) other.classList.remove("opened");
    row.classList.add("opened");
    const layer = layers[row.dataset.opens];
    tabs(layer);
    show((layer.tensors.find(([role]) => role === layer.first) ?? layer.tensors[0])[1]);
  };

  for (const row of all("tr[data-opens]"))
    row.addEventListener("click", () => {
      opener = row.querySelector(".open");
      openLayer(row);
      panel.scrollIntoView({ block: "nearest" });
      panel.focus({ preventScroll: true });
    });

  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && opener) opener.focus();
  });

  part("choice").append(...tensors.map((tensor, index) => Object.assign(element("option", tensor.name), { value: String(index) })));
  part("choice").addEventListener("change", (event) => {
    for (const row of all("tr.opened")) row.classList.remove("opened");
    tabs(null);
    show(Number(event.target.value));
  });

  const first = all("tr[data-opens]").find((row) => row.dataset.opens === found.first);
  if (first) openLayer(first);
  else if (tensors.length) show(0);
})();
