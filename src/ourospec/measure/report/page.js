"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);

  // Colours are written var(--name) in the figures, and hold one for light and one for dark in the style sheet;
  // plotly needs them spelled out, which an element that wears one does.
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;
  const resolved = (value) => {
    if (typeof value === "string" && value.startsWith("var(--")) {
      probe.style.color = value;
      return getComputedStyle(probe).color;
    }
    if (Array.isArray(value)) return value.map(resolved);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item)]));
    }
    return value;
  };

  const axis = {
    gridcolor: "var(--grid)", linecolor: "var(--edge)", zeroline: false, automargin: true, showspikes: false,
    tickfont: { color: "var(--soft)", size: 11 }, title: { font: { color: "var(--soft)", size: 11 }, standoff: 8 },
  };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 46, r: 12, t: 30, b: 40 },
    font: { family: "ui-sans-serif, system-ui, sans-serif", color: "var(--soft)", size: 12 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--edge)", font: { color: "var(--ink)", size: 12 } },
    hovermode: "x unified", showlegend: true, colorway: ["var(--train)", "var(--heldout)"],
  };
  const merged = (below, above) => {
    const result = { ...below };
    for (const [key, value] of Object.entries(above)) {
      const both = value && result[key] && typeof value === "object" && !Array.isArray(value);
      result[key] = both ? merged(result[key], value) : value;
    }
    return result;
  };

  const draw = () => {
    for (const figure of figures) {
      const layout = merged(merged(base, { xaxis: { ...axis, rangemode: "tozero" }, yaxis: axis }), figure.layout);
      layout.showlegend = figure.data.filter((trace) => trace.showlegend !== false).length > 1;
      const place = document.getElementById("plot-" + figure.name);
      Plotly.react(place, resolved(figure.data), resolved(layout), { responsive: true, displayModeBar: false });
    }
  };

  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    button.textContent = "theme: " + next;
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  const slider = document.getElementById("rounds");
  if (slider) {
    const rounds = [...document.querySelectorAll(".round")];
    slider.addEventListener("input", () => {
      rounds.forEach((round, index) => { round.hidden = index !== Number(slider.value); });
      document.getElementById("round").textContent = "step " + rounds[slider.value].dataset.step;
    });
  }

  draw();
})();
