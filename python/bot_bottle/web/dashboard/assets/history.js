// What was asked, and how was it answered? By bottle, tool, state or a word, one page at a time.

import { get } from "./api.js";
import { ask, look } from "./dialog.js";
import { h, time } from "./dom.js";
import { cells, none, table } from "./tables.js";

const STATES = ["pending", "approved", "modified", "rejected", "expired", "withdrawn"];
const DECIDED = ["approved", "modified", "rejected"];
const PAGE = 100;

async function keep(id) {
  let proof;
  try {
    proof = await get(`proposals/${id}/proof`);
  } catch (error) {
    await ask({ question: "There is no proof", about: [error.message], yes: "Close" });
    return;
  }
  const place = URL.createObjectURL(new Blob([`${JSON.stringify(proof, null, 2)}\n`], { type: "application/json" }));
  h("a", { href: place, download: `proof-${id}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(place), 60000);
}

export async function history() {
  let found = [];
  let asked = 0;
  const body = h("tbody");
  const nothing = none("Nothing fits.");
  const head = h("p", { class: "tone-quiet" });
  const more = h("button", { type: "button", onclick: () => load() }, "Older");
  const text = h("input", { type: "search", id: "filter", placeholder: "search (f)", "aria-label": "Search in all that was written" });
  const choose = (label) => h("select", { "aria-label": label, onchange: () => again() }, h("option", { value: "" }, label));
  const [bottle, tool, state] = ["Any bottle", "Any tool", "Any state"].map(choose);
  state.append(...STATES.map((name) => h("option", { value: name }, name)));

  const open = async (id) => look(`Proposal ${id}`, (await get(`proposals/${id}`)).sections);
  const line = (row) =>
    h("tr", null, cells(
      time(row.arrived),
      row.bottle_slug,
      row.tool,
      h("span", { class: `state ${row.state}` }, row.state),
      row.ended || row.why,
      h("span", { class: "buttons" },
        h("button", { type: "button", "aria-label": `Open proposal ${row.id}`, onclick: () => open(row.id) }, "Open"),
        DECIDED.includes(row.state)
          ? h("button", { type: "button", "aria-label": `Download the proof of ${row.id}`, onclick: () => keep(row.id) }, "Proof")
          : null),
    ));
  const load = async () => {
    const mine = (asked += 1);
    const given = { bottle: bottle.value, tool: tool.value, state: state.value, text: text.value, limit: PAGE };
    if (found.length) given.before = found.at(-1).id;
    const told = await get(`history?${new URLSearchParams(Object.entries(given).filter(([, value]) => value !== ""))}`);
    if (mine !== asked) return; // another filter was set in the meantime
    found = [...found, ...told.rows];
    body.append(...told.rows.map(line));
    more.hidden = !told.more;
    nothing.hidden = found.length > 0;
    if (told.head) head.replaceChildren(`The audit log ends with entry ${told.head.seq}, whose hash is `, h("code", null, told.head.entry_hash), ".");
    for (const [select, names] of [[bottle, told.bottles], [tool, told.tools]])
      if (names && select.length === 1) select.append(...names.map((name) => h("option", { value: name }, name)));
  };
  const again = () => {
    found = [];
    body.replaceChildren();
    return load();
  };
  let typing;
  text.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(again, 250);
  });
  await load();
  const shown = table(["Arrived", "Bottle", "Tool", "State", "What became of it", "Whole"], []);
  shown.querySelector("tbody").replaceWith(body);
  return h("div", { class: "page" }, h("h1", null, "History"), h("p", { class: "buttons" }, text, bottle, tool, state), shown, nothing, more, head);
}
