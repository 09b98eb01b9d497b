// Which bottles are there, do they work, who waits in them, and what was decided lately?

import { get } from "./api.js";
import { ago, clock, h, said, time } from "./dom.js";
import { none } from "./tables.js";

const TONES = { healthy: "good", running: "good", starting: "waits", created: "waits", degraded: "alarm", ended: "alarm" };

// Since midnight where the reader is; the proxy logs nothing of requests in which it finds nothing.
const traffic = ({ allowed, masked, refused, more }) =>
  allowed + masked + refused
    ? `${more ? "at least " : ""}${allowed} allowed, ${masked} masked, ${refused} refused`
    : "nothing found";

function card(each) {
  const health = each.sidecars;
  const since = health.since ? ` since ${clock(health.since)}` : "";
  const detail = health.detail ? `: ${health.detail}` : "";
  const lately = each.decisions.map((one) =>
    h("li", null, said(one.state), ` ${one.tool}, by ${one.decided_by} `, time(one.decided_at, `${ago(one.decided_at)} ago`)),
  );
  const facts = [
    ["State", each.stopped_at ? `stopped ${clock(each.stopped_at)}` : `running for ${ago(each.started_at)}`],
    ["Sidecars", h("span", { class: `tone-${TONES[health.state] ?? "quiet"}` }, `${health.state}${since}${detail}`)],
    ["Pending", `${each.pending ?? 0}, ${each.waiting ?? 0} of them waited for`],
    ["Last seen", each.last_seen ? (Date.parse(each.last_seen) > Date.now() ? "now" : time(each.last_seen, `${ago(each.last_seen)} ago`)) : "never"],
    ["Scan today", traffic(each.traffic)],
    ["Grants", String(each.grants ?? 0)],
    ["Backend", `${each.backend}${each.transport ? `, database over ${each.transport}` : ""}`],
    ["Files", Object.entries(each.files ?? {}).map(([tool, path]) => `${tool}: ${path}`).join(", ") || "none"],
  ];
  return h(
    "section",
    { class: "card", "aria-label": `Bottle ${each.slug}` },
    h("h2", null, each.slug),
    each.damaged ? h("p", { class: "tone-alarm" }, each.damaged) : null,
    h("dl", null, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    lately.length ? [h("h3", null, "Decided lately"), h("ul", null, lately)] : null,
  );
}

export async function bottles() {
  const midnight = Math.floor(new Date().setHours(0, 0, 0, 0) / 1000);
  const { bottles: found } = await get(`bottles?since=${midnight}`);
  found.sort((a, b) => Boolean(a.stopped_at) - Boolean(b.stopped_at) || (a.slug < b.slug ? -1 : 1));
  return h("div", { class: "page" }, h("h1", null, "Bottles"), h("div", { class: "cards" }, found.map(card)),
    found.length ? null : none("No bottle was started yet."));
}
