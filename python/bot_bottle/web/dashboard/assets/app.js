// How do the pages and the keys come together?

import * as inbox from "./inbox.js";
import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { bottles } from "./bottles.js";
import { history as past } from "./history.js";
import { oversight } from "./oversight.js";
import { policies } from "./policies.js";
import { grants, status } from "./tables.js";

const PAGES = ["inbox", "history", "bottles", "grants", "policies", "oversight", "status"];
const tables = { history: past, bottles, grants, policies, oversight, status };
const main = document.getElementById("main");
const told = document.getElementById("told");
const state = document.getElementById("link-state");
let current = "inbox";

const links = PAGES.map((name, at) =>
  h("button", { type: "button", id: `to-${name}`, onclick: () => show(name) }, `${at + 1} ${name[0].toUpperCase()}${name.slice(1)}`),
);
document.getElementById("pages").append(...links);

function tell(text, tone = "plain") {
  told.textContent = text;
  told.className = `tone-${tone}`;
}

function count(pending, marked) {
  document.title = pending ? `(${pending}) bot-bottle` : "bot-bottle";
  links[0].textContent = `1 Inbox${pending ? ` (${pending})` : ""}${marked ? `, ${marked} marked` : ""}`;
}

async function show(name) {
  current = name;
  for (const [at, link] of links.entries()) link.setAttribute("aria-current", PAGES[at] === name ? "page" : "false");
  if (name === "inbox") {
    main.replaceChildren(inbox.page);
    document.getElementById("list").focus();
    return;
  }
  document.body.classList.remove("reviewing");
  history.replaceState(null, "", `#${name}`);
  try {
    const page = await tables[name](() => show(name));
    if (current === name) main.replaceChildren(page);
    main.focus();
  } catch (error) {
    tell(error.message, "alarm");
  }
}

const HELP = [
  ["1 to 7", "Inbox, History, Bottles, Grants, Policies, Oversight, Status"],
  ["Up Down, j k", "another proposal; n the next one not looked at yet"],
  ["Space, PgUp, PgDn, Home, End", "read"],
  ["f or /", "filter the list"],
  ["a", "approve; A with the next wider scope chosen"],
  ["m", "modify here; the diff of your edit is shown before it is sent"],
  ["r", "reject; the agent reads the reason"],
  ["w", "write back: ask, or ask for changes; it stays pending"],
  ["x, b", "mark one that was read to its end; approve all marked ones"],
  ["g", "approve all that wait and are of the kind of this one, which are shown"],
  ["c", "take out of the list what is decided"],
];
const help = () =>
  ask({
    question: "Keys",
    body: h("dl", null, HELP.map(([key, does]) => [h("dt", null, key), h("dd", null, does)])),
    yes: "Close",
  });

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (target.matches("input, textarea, select")) return;
  if (target instanceof HTMLButtonElement && (event.key === " " || event.key === "Enter")) return;
  const page = PAGES[Number(event.key) - 1];
  const run =
    event.key === "?" ? help
    : page ? () => show(page)
    : current === "inbox" ? inbox.KEYS[event.key]
    : event.key === "f" ? () => document.getElementById("filter")?.focus()
    : null;
  if (!run) return;
  event.preventDefault();
  run(event.timeStamp);
});

// A notification that was tapped while this page was open.
navigator.serviceWorker?.addEventListener("message", (event) => {
  const id = event.data.place?.match(/^\/#inbox\/([0-9a-f-]+)$/)?.[1];
  if (id) show("inbox").then(() => inbox.select(id));
});

const wanted = location.hash.slice(1).split("/")[0];
show("inbox");
await inbox
  .start(tell, count, (connected) => {
    state.textContent = connected ? "" : "not connected; trying again";
    state.className = connected ? "" : "tone-alarm";
    document.documentElement.dataset.live = String(connected);
  })
  .catch((error) => tell(error.message, "alarm"));
if (PAGES.includes(wanted) && wanted !== "inbox") show(wanted);
