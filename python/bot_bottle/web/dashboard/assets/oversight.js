// How do people oversee the agents: how much do they decide, how fast, and after seeing how much? See docs/oversight.md.

import { get } from "./api.js";
import { h } from "./dom.js";
import { cells, none, table } from "./tables.js";

const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, properties, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

const titled = (element, text) => {
  element.append(drawn("title", {}, text));
  return element;
};

// One bar for each day, today last; a screen reader reads the sum.
function bars(values) {
  const most = Math.max(1, ...values);
  const width = 100 / values.length;
  const today = Date.now();
  const days = values.map((value, at) => {
    const height = (38 * value) / most;
    const day = new Date(today - (values.length - 1 - at) * 86400000).toISOString().slice(0, 10);
    return titled(drawn("rect", { x: at * width, y: 39 - height, width: width * 0.8, height: Math.max(height, value ? 0.5 : 0) }), `${day}: ${value}`);
  });
  const sum = values.reduce((a, b) => a + b, 0);
  const label = `${sum} decisions in ${values.length} days, at most ${Math.max(...values)} in one (UTC)`;
  return h("figure", { class: "chart" }, h("figcaption", null, label),
    drawn("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...days,
      drawn("line", { x1: 0, y1: 39.5, x2: 100, y2: 39.5 })));
}

// The kinds of answers, as shares of all.
function parts(figures) {
  const kinds = [["approved", figures.approved], ["modified", figures.modified], ["rejected", figures.rejected], ["expired", figures.expired]];
  const sum = kinds.reduce((total, [, value]) => total + value, 0) || 1;
  let x = 0;
  const pieces = kinds.map(([name, value]) => {
    const piece = titled(drawn("rect", { class: name, x, y: 0, width: (100 * value) / sum, height: 6 }), `${name}: ${value}`);
    x += (100 * value) / sum;
    return piece;
  });
  const label = kinds.map(([name, value]) => `${value} ${name}`).join(", ");
  return drawn("svg", { class: "parts", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...pieces);
}

const span = (seconds) =>
  seconds === null ? "-" : seconds < 100 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;

function line(name, figures) {
  const { seen, seconds } = figures;
  return h("tr", null, cells(
    name, parts(figures), String(figures.decided), String(figures.by_policy), `${figures.expired} (${figures.expired_unseen})`,
    span(seconds.median), span(seconds.p95), String(seen.within_a_second), String(seen.not_to_the_end), String(seen.not_shown), String(figures.reversed),
  ));
}

const HEADS = ["", "How", "Decided", "By policy", "Expired (unseen)", "Median", "p95", "Within 1 s", "Not to its end", "Not shown", "Reversed"];

export async function oversight(again, days = 30) {
  const told = await get(`oversight?days=${days}`);
  const choose = h("select", { "aria-label": "Days", onchange: async () => page.replaceWith(await oversight(again, choose.value)) },
    [7, 30, 90, 365].map((each) => h("option", { value: String(each), selected: Number(days) === each }, `last ${each} days`)));
  const groups = [["Bottle", told.by_bottle], ["Tool", told.by_tool], ["Operator", told.by_operator]];
  const page = h("div", { class: "page" },
    h("h1", null, "Oversight"),
    h("p", { class: "buttons" }, choose),
    told.total.decided + told.total.expired ? bars(told.days) : none("Nothing was decided in these days."),
    table(["All", ...HEADS.slice(1)], [line("all", told.total)]),
    told.views_recorded ? null : none("What was shown is not recorded yet, so that the columns on it say nothing."),
    groups.filter(([, group]) => Object.keys(group).length).map(([head, group]) =>
      [h("h2", null, `By ${head.toLowerCase()}`), table([head, ...HEADS.slice(1)], Object.entries(group).map(([name, figures]) => line(name, figures)))]),
  );
  return page;
}
