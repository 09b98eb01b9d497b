// What is pending, what is in it, and how is it decided? The selection is a proposal, not a row.

import { follow, get, post, Problem } from "./api.js";
import { ask, choice, line, READING_TIME } from "./dialog.js";
import { ago, diffLines, h, said, section } from "./dom.js";
import { virtual } from "./list.js";
import { looking, looks } from "./presence.js";

const rows = new Map(); // id → row, in order of arrival as ids are
const elements = new Map(); // id → its element in the list
const seen = new Set();
const marked = new Set();
const read = new Map(); // id → hash of the payload that was read to its end
const reasons = [];
let bottles = new Map();
let lines = []; // as listed: {slug} is a heading, a row is a row
let places = new Map(); // id → its place in lines
let waits = 0;
let selected = null;
let shown = null; // the whole proposal on the right, and when it was painted
let filter = "";
let tell;
let counted;

const list = h("div", { id: "list", role: "listbox", "aria-label": "Proposals", tabindex: "0" });
const empty = h("p", { class: "tone-quiet", hidden: true });
const view = virtual(list, (line) => (line.id ? 3.5 : 2.1), (line, at) => (line.id ? element(line, at) : heading(line)));
const review = h("article", { id: "review", "aria-label": "The selected proposal", tabindex: "0" });
const actions = h("p", { id: "actions", class: "buttons" });
const others = h("p", { id: "others", role: "status", class: "tone-soon" });
const asked = h("input", { type: "search", id: "filter", placeholder: "filter (f)", "aria-label": "Filter the list" });
export const page = h(
  "div",
  { id: "inbox" },
  h("h1", { class: "unseen" }, "Inbox"),
  h("div", { id: "left" }, asked, empty, list),
  h("div", { id: "right" }, h("h2", { class: "unseen" }, "The selected proposal"), others, review, actions),
);

asked.addEventListener("input", () => {
  filter = asked.value.toLowerCase();
  draw();
});
asked.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === "Escape") list.focus();
});
review.addEventListener("scroll", notice, { passive: true });

export async function start(teller, counter, connected) {
  tell = teller;
  counted = counter;
  const at = await reload();
  const wanted = location.hash.match(/^#inbox\/([0-9a-f-]+)$/);
  if (wanted) await select(wanted[1]);
  else if (matchMedia("(min-width: 45rem)").matches) move(1);
  follow(at, heard, connected);
  refresh();
}

// What is happening in the bottles, and whose requests a bypass approves: every page shows this.
function around(told) {
  bottles = new Map(told.bottles.map((each) => [each.slug, each]));
  const said = document.getElementById("bypasses");
  said.textContent = told.bypasses.join(" ");
  said.hidden = !told.bypasses.length;
}

async function reload() {
  const told = await get("inbox");
  around(told);
  merge(told.rows);
  return told.at;
}

// A requester that leaves changes nothing except the end of its lease, so the rows in view are read again regularly.
async function refresh() {
  for (let pause = 10_000; ; ) {
    await new Promise((done) => setTimeout(done, pause));
    if (document.hidden) continue;
    const begun = performance.now();
    const ids = view.inView().filter((line) => line.id && line.pending).map((line) => line.id).slice(0, 100);
    try {
      const told = await get(`rows?ids=${ids.join(",")}`);
      around(told);
      merge(told.rows);
    } catch {
      // The next round tries again.
    }
    pause = Math.max(10_000, 20 * (performance.now() - begun));
  }
}

function heard(event, told) {
  if (event === "rows") merge(told);
  else if (event === "looking") looks(told);
  else reload();
}

function merge(news) {
  for (const row of news) {
    const before = rows.get(row.id);
    if (!before && !row.pending) continue;
    rows.set(row.id, { ...before, ...row });
    elements.delete(row.id);
    if (!row.pending) marked.delete(row.id);
    // A proposal that changes on the screen is shown anew; a renewed lease alone is no reason to move the text.
    if (row.id === selected && before && (before.state !== row.state || before.last_word !== row.last_word)) select(row.id, true);
  }
  draw();
}

const lapsed = (row) => row.expires_at && Date.parse(row.expires_at) <= Date.now();
const open = (row) => row.pending && !lapsed(row);
const matches = (row) =>
  [row.bottle_slug, row.tool, row.id, row.state, row.why].some((text) => text?.toLowerCase().includes(filter));

let asking = false;

// Once per frame, however much arrived in it.
export function draw() {
  if (asking) return;
  asking = true;
  // A hidden page has no frames, but its title still counts.
  if (document.hidden) setTimeout(drawn);
  else requestAnimationFrame(drawn);
}

function drawn() {
  if (!asking) return;
  asking = false;
  const before = places.get(selected);
  const stood = before === undefined ? undefined : view.top(before);
  const groups = new Map();
  waits = 0;
  for (const row of [...rows.values()].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    if (open(row)) waits += 1;
    if (filter && !matches(row)) continue;
    if (groups.has(row.bottle_slug)) groups.get(row.bottle_slug).push(row);
    else groups.set(row.bottle_slug, [row]);
  }
  lines = [...groups].flatMap(([slug, group]) => [{ slug }, ...group]);
  places = new Map(lines.flatMap((line, at) => (line.id ? [[line.id, at]] : [])));
  view.set(lines);
  // The selected row stays where it is on the screen when rows above it arrive or leave.
  const after = places.get(selected);
  if (stood !== undefined && after !== undefined && view.top(after) !== stood) view.shift(view.top(after) - stood);
  empty.hidden = lines.length > 0;
  empty.textContent = filter ? "Nothing matches." : "Nothing waits for you.";
  list.hidden = !lines.length;
  counted(waits, marked.size);
  drawActions();
}

function order() {
  drawn();
  return lines.filter((line) => line.id).map((row) => row.id);
}

function heading({ slug }) {
  return h("h2", { role: "presentation" }, slug, h("small", null, about(bottles.get(slug))));
}

function about(bottle) {
  if (!bottle) return "";
  const state = bottle.stopped_at ? "stopped" : bottle.started_at ? `running on ${bottle.backend}` : "not registered";
  const grants = bottle.grants ? `, ${bottle.grants} grant${bottle.grants > 1 ? "s" : ""}` : "";
  return ` ${state}, ${bottle.waiting} of ${bottle.pending} waiting${grants}`;
}

function element(row, at) {
  let made = elements.get(row.id);
  if (!made) {
    made = h(
      "div",
      { id: `row-${row.id}`, role: "option", onclick: () => select(row.id) },
      h("span", { class: "flags" }),
      h("span", { class: "age", "data-since": row.arrived }, row.arrived ? ago(row.arrived) : ""),
      h("b", null, row.tool ?? ""),
      row.waiter && row.pending ? said(row.waiter) : null,
      h("span", { class: row.pending ? "why" : "why tone-quiet" }, row.pending ? row.why || "(no reason given)" : row.ended),
    );
    elements.set(row.id, made);
  }
  const flags = [marked.has(row.id) ? "x" : "", seen.has(row.id) ? "" : "*", row.odd ? "!" : ""].join("");
  const names = [marked.has(row.id) && "marked", !seen.has(row.id) && "not looked at yet", row.odd && "could deceive a reader"];
  made.firstChild.textContent = flags;
  made.firstChild.title = row.odd ? "something in it could deceive a reader" : "";
  made.setAttribute("aria-label", `${row.tool}, ${row.state}, ${row.why || row.ended || "no reason given"}. ${names.filter(Boolean).join(", ")}`);
  made.setAttribute("aria-selected", String(row.id === selected));
  made.setAttribute("aria-setsize", String(places.size));
  made.setAttribute("aria-posinset", String(at + 1));
  made.className = `row ${row.state}`;
  if (row.id === selected) list.setAttribute("aria-activedescendant", made.id);
  return made;
}

setInterval(() => {
  for (const each of list.querySelectorAll("[data-since]")) each.textContent = ago(each.dataset.since);
}, 5000);

export async function select(id, again = false) {
  if (id === selected && shown && !again) {
    document.body.classList.add("reviewing");
    return;
  }
  selected = id;
  shown = null;
  list.removeAttribute("aria-activedescendant");
  looking(drawLooking, id);
  drawActions();
  history.replaceState(null, "", `#inbox/${id}`);
  try {
    const whole = await get(`proposals/${id}`);
    if (id !== selected) return; // another one was selected in the meantime
    if (!rows.has(id)) rows.set(id, whole.row);
    review.replaceChildren(...whole.sections.map(section));
    review.scrollTop = 0;
    document.body.classList.add("reviewing");
    seen.add(id);
    // Twice: the first callback runs before the frame that shows it.
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        if (id !== selected) return;
        shown = { ...whole, id, painted: performance.now() };
        review.dataset.shown = id;
        notice();
        drawActions();
      }),
    );
  } catch (error) {
    review.replaceChildren(h("p", { class: "tone-alarm" }, error.message));
  }
  draw();
  requestAnimationFrame(() => view.reveal(places.get(id) ?? -1));
}

function notice() {
  if (shown && review.scrollTop + review.clientHeight >= review.scrollHeight - 4) read.set(shown.id, shown.review_sha256);
}

const unread = (whole) => read.get(whole.id) !== whole.review_sha256;

// Who else is looking at the selected proposal.
function drawLooking(names) {
  others.textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} viewing this too` : "";
}

function drawActions() {
  const row = rows.get(selected);
  const can = shown && row && open(row);
  const button = (label, key, run) =>
    h("button", { type: "button", disabled: !can, "data-key": key, onclick: () => guarded(run) }, label);
  actions.replaceChildren(
    h("button", { type: "button", class: "back", onclick: () => document.body.classList.remove("reviewing") }, "Back"),
    button("Approve (a)", "a", () => approve(0)),
    button("Modify (m)", "m", modify),
    button("Reject (r)", "r", reject),
    button("Ask back (w)", "w", askBack),
    h("span", { class: "tone-quiet" }, (row && !open(row) && row.ended) || ""),
  );
}

function move(by) {
  const ids = order();
  if (!ids.length) return;
  const at = ids.indexOf(selected);
  select(ids[Math.min(ids.length - 1, Math.max(0, at < 0 ? 0 : at + by))]);
}

function next() {
  const ids = order();
  const from = ids.indexOf(selected) + 1;
  const found = [...ids.slice(from), ...ids.slice(0, from)].find((id) => !seen.has(id) && open(rows.get(id)));
  if (found) select(found);
  else tell("You have looked at all of them.");
}

// -- deciding

let deciding = false;

// One question at a time, and only about what was on the screen long enough to be read.
async function guarded(run, pressed = performance.now()) {
  if (deciding || !selected) return;
  if (!shown || pressed < shown.painted + READING_TIME) {
    tell("That came before this proposal was on the screen: nothing was decided.", "soon");
    return;
  }
  const row = rows.get(shown.id);
  if (!row || !open(row)) {
    tell(row?.ended || "It has expired.", "soon");
    return;
  }
  deciding = true;
  try {
    await run(shown);
  } catch (error) {
    tell(error.message, "alarm");
    if (error instanceof Problem) select(selected, true);
  } finally {
    deciding = false;
    list.focus();
  }
}

const facts = (whole) => [
  `bottle ${whole.row.bottle_slug}, tool ${whole.row.tool}, ${whole.row.waiter.text}`,
  `SHA-256 ${whole.payload_sha256}`,
];

async function send(whole, decision) {
  const body = { review_sha256: whole.review_sha256, ...decision };
  const told = await post(`proposals/${whole.id}/decision`, body);
  merge([told.row]);
  tell(told.told.map((each) => each.text).join("  "), "good");
}

async function approve(scope) {
  const whole = shown;
  const scopes = choice(whole.scopes, scope);
  const reason = whole.needs_reason ? line("The reason, which is recorded", reasons) : null;
  const answer = await ask({
    question: whole.question,
    about: facts(whole),
    warning: unread(whole) ? "I have not read it to its end, and approve it all the same." : null,
    body: [scopes.element, reason?.element],
    yes: "Approve",
    tone: "good",
    read: () =>
      reason && !reason.value() ? "It needs a reason." : { scope: scopes.value(), notes: reason?.value() ?? "" },
  });
  if (answer) await send(whole, { status: "approved", notes: answer.notes, ...(answer.scope ? { scope: answer.scope } : {}) });
}

async function reject() {
  const whole = shown;
  const reason = line("The reason; the agent reads it", reasons);
  const answer = await ask({
    question: `Reject ${whole.row.tool} of ${whole.row.bottle_slug}?`,
    about: facts(whole),
    body: reason.element,
    yes: "Reject",
    tone: "bad",
    read: () => ({ notes: reason.value() }),
  });
  if (!answer) return;
  if (answer.notes && !reasons.includes(answer.notes)) reasons.unshift(answer.notes);
  await send(whole, { status: "rejected", notes: answer.notes });
}

async function askBack() {
  const whole = shown;
  const question = line("Your question, or what shall change; the agent reads it");
  const answer = await ask({
    question: `Ask back about ${whole.row.tool} of ${whole.row.bottle_slug}? It stays pending.`,
    about: facts(whole),
    body: question.element,
    yes: "Ask",
    read: () => (question.value() ? { text: question.value(), id: crypto.randomUUID() } : "There is no question."),
  });
  if (!answer) return;
  const told = await post(`proposals/${whole.id}/question`, answer);
  merge([told.row]);
  tell(told.told.map((each) => each.text).join("  "), "good");
}

async function modify() {
  const whole = shown;
  const { text } = await post(`proposals/${whole.id}/draft`);
  const editor = h("textarea", { rows: "16", spellcheck: "false", "aria-label": "Your version" });
  editor.value = text;
  for (;;) {
    const edited = await ask({
      question: `Your version of ${whole.row.tool} of ${whole.row.bottle_slug}`,
      about: whole.row.odd ? ["Something in it could deceive a reader; the next step spells out what you change."] : [],
      body: editor,
      yes: "Show the change",
      read: () => (editor.value.trim() ? { final_file: editor.value } : "It is empty."),
      wide: true,
    });
    if (!edited) return;
    const { diff } = await post(`proposals/${whole.id}/diff`, edited);
    if (!diff) {
      tell("You changed nothing: approve it as it is, or edit it.", "soon");
      continue;
    }
    const note = line("A note; the agent reads it", reasons);
    const answer = await ask({
      question: "Send your version instead?",
      about: facts(whole),
      body: [h("h3", null, "What you changed"), h("pre", { class: "diff", tabindex: "0" }, diffLines(diff)), note.element],
      yes: "Send",
      tone: "good",
      read: () => ({ notes: note.value() }),
      wide: true,
    });
    if (answer) return send(whole, { status: "modified", final_file: edited.final_file, notes: answer.notes });
  }
}

async function mark() {
  if (unread(shown)) return tell("Read it to its end (space, End) before you mark it.", "soon");
  if (!marked.delete(shown.id)) marked.add(shown.id);
  draw();
  move(1);
}

async function approveMarked() {
  const chosen = [...marked].map((id) => rows.get(id)).filter((row) => row && open(row));
  if (!chosen.length) return tell("Nothing is marked: x marks a proposal that was read to its end.");
  const reason = line("A reason, which is recorded", reasons);
  const answer = await ask({
    question: `Approve these ${chosen.length}?`,
    body: [h("pre", null, chosen.map((row) => `${row.bottle_slug}  ${row.tool}  ${row.id}  ${row.why}\n`)), reason.element],
    yes: `Approve ${chosen.length}`,
    tone: "good",
    read: () => ({ notes: reason.value() }),
    wide: true,
  });
  if (answer) await approveEach(chosen.map((row) => [row.id, read.get(row.id)]), answer.notes);
}

async function approveGroup() {
  const row = rows.get(shown.id);
  if (!row.group) return tell(`${row.tool} names no kind here, so there is no group.`);
  const alike = [...rows.values()].filter((each) => each.group === row.group && open(each));
  const all = await Promise.all(alike.map((each) => (each.id === shown.id ? shown : get(`proposals/${each.id}`))));
  const reason = line("A reason, which is recorded", reasons);
  const answer = await ask({
    question: `Approve these ${all.length}, each of them once?`,
    body: [...all.flatMap((each) => each.sections.map(section)), reason.element],
    yes: `Approve ${all.length}`,
    tone: "good",
    read: () => (reason.value() ? { notes: reason.value() } : "It needs a reason."),
    wide: true,
  });
  if (answer) await approveEach(all.map((each) => [each.row.id, each.review_sha256]), answer.notes);
}

async function approveEach(chosen, notes) {
  const failed = [];
  for (const [id, review_sha256] of chosen) {
    try {
      merge([(await post(`proposals/${id}/decision`, { status: "approved", review_sha256, notes })).row]);
    } catch (error) {
      failed.push(error.message);
    }
  }
  tell([`approved ${chosen.length - failed.length} of ${chosen.length}`, ...failed].join("; "), failed.length ? "alarm" : "good");
}

function clear() {
  for (const row of [...rows.values()]) if (!open(row)) rows.delete(row.id);
  if (!rows.has(selected)) {
    selected = shown = null;
    review.replaceChildren();
    document.body.classList.remove("reviewing");
  }
  draw();
}

const scroll = (by) => review.scrollBy({ top: by * (review.clientHeight - 40) });

// The keys of the terminal app. Those that decide come with the moment at which they were pressed.
export const KEYS = {
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  j: () => move(1),
  k: () => move(-1),
  n: next,
  " ": () => scroll(1),
  PageDown: () => scroll(1),
  PageUp: () => scroll(-1),
  Home: () => review.scrollTo({ top: 0 }),
  End: () => review.scrollTo({ top: review.scrollHeight }),
  "/": () => asked.focus(),
  f: () => asked.focus(),
  a: (pressed) => guarded(() => approve(0), pressed),
  A: (pressed) => guarded(() => approve(1), pressed),
  m: (pressed) => guarded(modify, pressed),
  r: (pressed) => guarded(reject, pressed),
  w: (pressed) => guarded(askBack, pressed),
  x: (pressed) => guarded(mark, pressed),
  b: (pressed) => guarded(approveMarked, pressed),
  g: (pressed) => guarded(approveGroup, pressed),
  c: clear,
  Escape: () => document.body.classList.remove("reviewing"),
};
