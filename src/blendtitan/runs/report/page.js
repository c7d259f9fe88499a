"use strict";
(() => {
  const { figures, themes } = JSON.parse(document.getElementById("values").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const NARROW = 520; // CSS pixels
  const ROW = 14; // of small text
  const CHARACTER = 7; // its width, at most
  const STARTS = { left: 0, center: 0.5, right: 1 }; // parts of a label before its line
  const MODE_BAR = 24; // its height
  const PRINTED_HEIGHT = 0.72; // of that on a screen: three figures on a sheet
  const PRINTED_WIDTH = 680; // CSS pixels that A4 and Letter have between the margins of page.css

  // Figures name colours as "@ink": put those of a theme in their place.
  const colored = (value, theme) => {
    if (typeof value === "string") return value.startsWith("@") ? theme[value.slice(1)] ?? value : value;
    if (Array.isArray(value)) return value.map((each) => colored(each, theme));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, colored(each, theme)]));
  };

  // Labels beside their lines, none beyond an edge; in rows above the plot if they would hide each other.
  const stacked = (layout, width) => {
    const labels = (layout.annotations ?? []).filter((each) => each.text);
    if (!labels.length) return {};
    const last = layout.xaxis.range?.[1];
    const anchored = labels.map((each) => ({
      ...each,
      xanchor: each.x < 0.3 * last ? "left" : each.x > 0.5 * last ? "right" : "center",
    }));
    const start = ({ x, text, xanchor }) => x / last * width - CHARACTER * text.length * STARTS[xanchor];
    const meet = (a, b) => start(a) < start(b) + CHARACTER * b.text.length && start(b) < start(a) + CHARACTER * a.text.length;
    const isHidden = anchored.some((a, i) => anchored.slice(i + 1).some((b) => meet(a, b)));
    if (width > NARROW && !isHidden) return { annotations: anchored };
    const above = ROW * (labels.length - 1);
    return {
      height: layout.height + above,
      margin: { ...layout.margin, t: layout.margin.t + above },
      annotations: anchored.map((each, row) => ({ ...each, yshift: ROW * row })),
    };
  };

  // What does not fit on a phone: names on axes and in a row.
  const narrowed = (data, layout) => {
    const names = layout.yaxis.categoryarray;
    const wrapped = (name) => {
      const lines = name.match(/(?:&[^;]+;|[^&]){1,15}/g);
      return lines.slice(0, 2).join("<br>") + (lines.length > 2 ? "\u2026" : "");
    };
    const isBelow = layout.legend.yanchor === "top";
    const entries = data.filter((each) => each.showlegend !== false).length;
    return {
      height: layout.height + (layout.showlegend && isBelow ? ROW * entries : 0),
      legend: { ...layout.legend, font: { size: 11 } },
      yaxis: names ? { ...layout.yaxis, tickvals: names, ticktext: names.map(wrapped), tickfont: { size: 10 } } : layout.yaxis,
    };
  };

  const printed = (data, layout) => ({
    ...layout,
    ...narrowed(data, { ...layout, height: layout.height * PRINTED_HEIGHT }),
    width: PRINTED_WIDTH,
    yaxis: layout.yaxis,
  });

  const draw = (theme, isPrinted) => {
    plots.forEach((plot, number) => {
      const { data, layout } = colored(figures[number], theme);
      const sized = isPrinted ? printed(data, layout) : { ...layout, autosize: true };
      if (!isPrinted && plot.clientWidth < NARROW) Object.assign(sized, narrowed(data, layout));
      Object.assign(sized, stacked(sized, isPrinted ? PRINTED_WIDTH : plot.clientWidth));
      // The mode bar has a row of its own, so that it hides no label.
      if (!isPrinted && !touch.matches && sized.annotations?.some((each) => each.text)) {
        sized.height += MODE_BAR;
        sized.margin = { ...sized.margin, t: sized.margin.t + MODE_BAR };
      }
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
  const drawScreen = () => draw(dark.matches ? themes.dark : themes.light, false);

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
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
    draw(themes.light, true);
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    drawScreen();
  });
  dark.addEventListener("change", drawScreen);
  drawScreen();
})();
