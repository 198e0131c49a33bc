/* Sorts, filters and searches tables of the class "sortable", and opens what a link points into. The page is whole without it. */
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const digits = {"⁰": "0", "¹": "1", "²": "2", "³": "3", "⁴": "4", "⁵": "5", "⁶": "6", "⁷": "7", "⁸": "8", "⁹": "9", "⁻": "-"};
  const text = (cell) => ((cell && (cell.querySelector(".value") || cell)).textContent || "").trim();

  /* The number that a cell begins with, such as 1,234, −0.5, 98.8 %, 1.2×10⁻³; NaN where it begins with none. */
  const numberOf = (shown) => {
    const plain = shown.replace(/−/g, "-").replace(/[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]/g, (c) => digits[c]).replace(/,/g, "").replace(/^(at least|at most|[<>])\s*/, "");
    const power = /^(?:([-+]?[\d.]+)×)?10(-?\d+)(?!\d*\.)/.exec(plain);
    if (power && /10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]/.test(shown)) return Number(power[1] || 1) * 10 ** Number(power[2]);
    const found = /^[-+]?[\d.]+(?:e[-+]?\d+)?/i.exec(plain);
    return found ? Number(found[0]) : NaN;
  };

  const make = (tag, properties, ...inside) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...inside);
    return made;
  };

  const sort = (table, head, column) => {
    const rising = head.getAttribute("aria-sort") === "descending";
    for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const sign = rising ? 1 : -1;
    const keyed = [...table.tBodies[0].rows].map((row) => {
      const shown = text(row.cells[column]);
      return {row, shown, value: numberOf(shown)};
    });
    const numeric = head.classList.contains("n");
    keyed.sort((a, b) => {
      if (!numeric) return sign * a.shown.localeCompare(b.shown, undefined, {numeric: true});
      if (isNaN(a.value) || isNaN(b.value)) return isNaN(a.value) - isNaN(b.value);  /* what was not measured stays at the end */
      return sign * (a.value - b.value);
    });
    table.tBodies[0].append(...keyed.map((k) => k.row));
  };

  const choices = (table, column) => {
    const found = new Set([...table.tBodies[0].rows].map((row) => text(row.cells[column])));
    return [...found].sort((a, b) => a.localeCompare(b, undefined, {numeric: true}));
  };

  [...document.querySelectorAll("table.sortable")].forEach((table, place) => {
    if (!table.tHead || !table.tBodies.length || table.tBodies[0].rows.length < 2) return;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.querySelector(".sr")) return;  /* a column of bars */
      const button = make("button", {type: "button", className: "sorter"});
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, head, column));
    });
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 8) return;
    const words = rows.map((row) => row.textContent.toLowerCase());
    const told = make("span", {className: "told"});
    told.setAttribute("role", "status");
    const search = make("input", {type: "search", id: `search-${place}`});
    const selects = [];
    const show = () => {
      const wanted = search.value.trim().toLowerCase();
      let shown = 0;
      rows.forEach((row, i) => {
        const good = words[i].includes(wanted) && selects.every(([s, column]) => !s.value || text(row.cells[column]) === s.value);
        row.hidden = !good;
        shown += good;
      });
      told.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
    };
    search.addEventListener("input", show);
    const bar = make("div", {className: "tools"}, make("label", {htmlFor: search.id}, "Search ", search));
    heads.forEach((head, column) => {
      if (column === 0 || head.classList.contains("n") || head.querySelector(".sr")) return;
      const options = choices(table, column);
      if (options.length < 2 || options.length > 20) return;
      const select = make("select", {id: `filter-${place}-${column}`}, make("option", {value: ""}, "all"));
      for (const option of options) select.append(make("option", {value: option}, option));
      select.addEventListener("change", show);
      selects.push([select, column]);
      bar.append(make("label", {htmlFor: select.id}, `${head.textContent.trim()} `, select));
    });
    bar.append(told);
    table.closest(".scroll").before(bar);
    show();
  });

  const folds = [...document.querySelectorAll("section.fold > details")];
  if (folds.length) {
    const all = make("button", {type: "button", className: "all"}, "Open all");
    const tell = () => { all.textContent = folds.every((d) => d.open) ? "Close all" : "Open all"; };
    all.addEventListener("click", () => {
      const open = folds.some((d) => !d.open);
      folds.forEach((d) => { d.open = open; });
      tell();
    });
    folds.forEach((d) => d.addEventListener("toggle", tell));
    const list = document.querySelector("nav ol, nav ul");
    if (list) list.append(make("li", {}, all));
  }

  /* Browsers that do not open by themselves what a link points into, and those that print folds as they are. */
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    let closed = false;
    for (let d = target && target.closest("details"); d; d = d.parentElement.closest("details")) {
      closed = closed || !d.open;
      d.open = true;
    }
    if (closed) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  let before = [];
  addEventListener("beforeprint", () => { before = folds.filter((d) => !d.open); before.forEach((d) => { d.open = true; }); });
  addEventListener("afterprint", () => { before.forEach((d) => { d.open = false; }); });
});
