"use strict";
const root = document.documentElement;
const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
const config = {responsive: true, displayModeBar: false};
// On touch screens, dragging over a chart scrolls the page.
const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
// Text, grid and marker outlines (#ffffff in the data) get the page's colours, so that charts are readable in light and dark mode.
function paint() {
  for (const source of document.querySelectorAll("script.figure")) {
    const {data, layout} = JSON.parse(source.textContent.replaceAll('"#ffffff"', JSON.stringify(colour("--card"))));
    layout.font.color = colour("--soft");
    layout.hoverlabel = {...layout.hoverlabel, bgcolor: colour("--card"), bordercolor: colour("--line"), font: {color: colour("--ink")}};
    for (const key of Object.keys(layout).filter(key => /^[xy]axis\d*$/.test(key))) layout[key].gridcolor = colour("--grid");
    Plotly.react(source.dataset.target, data, {...layout, dragmode}, config);
  }
  choose();
}
// Show the architecture with the lowest loss within the slider's latency budget, and draw the budget as a line in the chart.
function choose() {
  const slider = document.getElementById("budget-ms");
  if (!slider) return;
  const {rows, teacher_ms} = JSON.parse(document.getElementById("budget-rows").textContent);
  const fastest = rows[0].latency_ms, slowest = rows[rows.length - 1].latency_ms;
  const ms = fastest + (slowest - fastest) * slider.value / slider.max;
  const best = rows.filter(row => row.latency_ms <= ms * (1 + 1e-9)).pop();
  const times = teacher_ms ? `, ${(teacher_ms / best.latency_ms).toFixed(1)} times as fast as the teacher` : "";
  const kept = best.retention ? `, ${(100 * best.retention).toFixed(1)} % of the teacher's scores` : "";
  document.getElementById("budget-out").value = `${ms.toFixed(3)} ms`;
  document.getElementById("budget-arch").textContent = `${best.arch}: loss ${best.loss.toFixed(4)}, ${best.latency_ms.toFixed(3)} ms${times}${kept}`;
  const line = {type: "line", x0: ms, x1: ms, y0: 0, y1: 1, yref: "paper", line: {color: colour("--accent"), width: 1.5, dash: "dash"}};
  Plotly.relayout(slider.dataset.chart || "chart-search_scatter", {shapes: [line]});
  const command = document.getElementById("budget-command");
  if (command) command.textContent = command.dataset.command.replace("ARCH", best.arch);
}
document.getElementById("budget-ms")?.addEventListener("input", choose);
paint();
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", paint);
document.getElementById("theme").addEventListener("click", () => {
  const now = root.dataset.theme || (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  paint();
});
