// What was decided, which bottles run, what may agents do again, and is all well? The pages beside the inbox.

import { get, post } from "./api.js";
import { ask, look } from "./dialog.js";
import { ago, clock, h, said, time } from "./dom.js";

const table = (heads, lines) =>
  h(
    "div",
    { class: "scrolls", tabindex: "0" },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", null, lines),
    ),
  );
const cells = (...each) => each.map((cell) => h("td", null, cell));
const none = (text) => h("p", { class: "tone-quiet" }, text);

export async function history() {
  const found = [];
  const body = h("tbody");
  const more = h("button", { type: "button", onclick: () => load() }, "Older");
  const filter = h("input", { type: "search", placeholder: "filter (f)", "aria-label": "Filter", id: "filter" });
  const draw = () => {
    const wanted = filter.value.toLowerCase();
    const fits = (row) => [row.bottle_slug, row.tool, row.id, row.state, row.why, row.ended].join(" ").toLowerCase();
    body.replaceChildren(
      ...found.filter((row) => fits(row).includes(wanted)).map((row) =>
        h("tr", null, cells(
          time(row.arrived),
          row.bottle_slug,
          row.tool,
          h("span", { class: `state ${row.state}` }, row.state),
          row.ended || row.why,
          h("button", { type: "button", onclick: () => open(row.id) }, "Open"),
        )),
      ),
    );
  };
  const open = async (id) => look(`Proposal ${id}`, (await get(`proposals/${id}`)).sections);
  const load = async () => {
    const before = found.length ? `&before=${found.at(-1).id}` : "";
    const { rows } = await get(`history?limit=100${before}`);
    found.push(...rows);
    more.hidden = rows.length < 100;
    draw();
  };
  filter.addEventListener("input", draw);
  await load();
  const shown = table(["Arrived", "Bottle", "Tool", "State", "What became of it", ""], []);
  shown.querySelector("tbody").replaceWith(body);
  return h("div", { class: "page" }, h("h1", null, "History"), filter, found.length ? shown : none("Nothing was asked yet."), more);
}

export async function bottles() {
  const { bottles: found } = await get("bottles");
  const card = (each) =>
    h(
      "section",
      { class: "card" },
      h("h2", null, each.slug),
      each.damaged ? h("p", { class: "tone-alarm" }, each.damaged) : null,
      h("dl", null, [
        ["State", each.stopped_at ? `stopped ${clock(each.stopped_at)}` : `running for ${ago(each.started_at)}`],
        ["Backend", `${each.backend}${each.transport ? `, database over ${each.transport}` : ""}`],
        ["Pending", `${each.pending ?? 0}, ${each.waiting ?? 0} of them waited for`],
        ["Grants", String(each.grants ?? 0)],
        ["Files", Object.entries(each.files ?? {}).map(([tool, path]) => `${tool}: ${path}`).join(", ") || "none"],
      ].map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    );
  found.sort((a, b) => Boolean(a.stopped_at) - Boolean(b.stopped_at) || (a.slug < b.slug ? -1 : 1));
  return h("div", { class: "page" }, h("h1", null, "Bottles"), h("div", { class: "cards" }, found.map(card)),
    found.length ? null : none("No bottle was started yet."));
}

export async function grants(again) {
  const { grants: found } = await get("grants");
  const revoke = async (grant) => {
    const sure = await ask({
      question: "Revoke this grant? The next such request asks again.",
      about: [`bottle ${grant.bottle_slug}, tool ${grant.tool}`, grant.fingerprint],
      yes: "Revoke",
      tone: "bad",
    });
    if (!sure) return;
    await post(`grants/${grant.id}/revoke`);
    again();
  };
  const lines = found.map((each) =>
    h("tr", null, cells(
      each.bottle_slug,
      each.tool,
      said(each.reach),
      h("span", null, time(each.created_at), ` by ${each.created_by}`),
      each.last_used_at ? time(each.last_used_at) : "never",
      h("code", null, each.fingerprint),
      h("button", { type: "button", onclick: () => revoke(each) }, "Revoke"),
    )),
  );
  return h("div", { class: "page" }, h("h1", null, "Grants"),
    found.length
      ? table(["Bottle", "Tool", "In force", "Given", "Last used", "About", ""], lines)
      : none("No grant is in force."));
}

export async function status(again) {
  const checking = again === true;
  const told = await get(checking ? "status?check=true" : "status");
  const facts = [
    ["Version", told.version],
    ["Database", `${told.database.path} (${told.database.size_bytes.toLocaleString()} bytes, SQLite ${told.database.sqlite_version})`],
    ["Schema", Object.entries(told.database.modules).map(([name, at]) => `${name} ${at.found} of ${at.supported}`).join(", ")],
    ["Keys", told.keys.map((key) => `${key.name || key.role} ${key.id.slice(0, 12)}${key.current ? "" : " (former)"}`).join(", ") || "none yet"],
  ];
  const findings = told.findings?.length
    ? told.findings.map((finding) => h("p", { class: "tone-alarm" }, finding))
    : h("p", { class: "tone-good" }, "The database is sound.");
  const page = h("div", { class: "page" },
    h("h1", null, "Status"),
    h("dl", null, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    told.failed.length ? h("h2", null, "Decided, but not in effect") : null,
    told.failed.map((row) => h("p", { class: "tone-alarm" }, `${row.tool} of ${row.bottle_slug}: ${row.ended}`)),
    told.findings ? findings : null,
    h("p", { class: "buttons" },
      h("button", { type: "button", onclick: async () => page.replaceWith(await status(true)) }, "Check the database"),
      h("button", { type: "button", onclick: logOut }, "Log out")));
  return page;
}

async function logOut() {
  await post("logout");
  localStorage.removeItem("page-key");
  location.replace("/login");
}
