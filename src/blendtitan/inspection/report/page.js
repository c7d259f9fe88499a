"use strict";
(() => {
  const { figures, themes } = JSON.parse(document.getElementById("values").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const PRINTED_HEIGHT = 0.72; // of that on a screen: three figures on a sheet
  const PRINTED_WIDTH = 680; // CSS pixels that A4 and Letter have between the margins of page.css

  // Figures name colours as "@ink": put those of a theme in their place.
  const colored = (value, theme) => {
    if (typeof value === "string") return value.startsWith("@") ? theme[value.slice(1)] ?? value : value;
    if (Array.isArray(value)) return value.map((each) => colored(each, theme));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, colored(each, theme)]));
  };

  const draw = (theme, width) => {
    plots.forEach((plot, number) => {
      const { data, layout } = colored(figures[number], theme);
      const isNarrow = (width ?? plot.clientWidth) < 520;
      const sized = width
        ? { ...layout, width, height: layout.height * PRINTED_HEIGHT }
        : { ...layout, autosize: true };
      if (isNarrow) sized.legend = { ...layout.legend, ...layout.meta.narrow_legend };
      // A finger that moves over a figure scrolls the page.
      sized.dragmode = touch.matches ? false : "zoom";
      plot.style.height = `${sized.height}px`;
      Plotly.react(plot, data, sized, {
        responsive: true,
        displaylogo: false,
        displayModeBar: touch.matches ? false : "hover",
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
      });
    });
  };
  const drawScreen = () => draw(dark.matches ? themes.dark : themes.light);

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  const sort = (heading) => {
    const column = heading.cellIndex;
    const body = heading.closest("table").tBodies[0];
    const rows = [...body.rows];
    if (rows.length === 0 || rows[0].cells.length <= column) return;
    const isNumber = rows.some((row) => row.cells[column].dataset.key !== undefined);
    const before = heading.getAttribute("aria-sort");
    const descends = before === null ? isNumber : before === "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descends ? "descending" : "ascending");
    const isEmpty = (row) => row.cells[column].textContent === "";
    rows.sort((a, b) => {
      if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b); // the empty ones last, always
      const order = compare(keyOf(a, column), keyOf(b, column));
      return descends ? -order : order;
    });
    body.append(...rows);
  };
  for (const heading of document.querySelectorAll("thead th")) {
    heading.querySelector("button").addEventListener("click", () => sort(heading));
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
    draw(themes.light, PRINTED_WIDTH);
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    drawScreen();
  });
  dark.addEventListener("change", drawScreen);
  drawScreen();
})();
