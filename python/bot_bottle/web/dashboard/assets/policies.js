// What do the rules say, what would they have decided, and which rules do people's decisions suggest?

import { get } from "./api.js";
import { h, time } from "./dom.js";
import { cells, none, table } from "./tables.js";

export async function policies() {
  const told = await get("policies");
  const rules = told.rules.map((rule) =>
    h("tr", null, cells(
      h("b", null, rule.name),
      ...rule.described,
      `${rule.matched} of ${told.decided}`,
      h("span", { class: rule.otherwise ? "tone-alarm" : "tone-quiet" }, String(rule.otherwise)),
    )),
  );
  const otherwise = told.rules.filter((rule) => rule.listed.length).map((rule) => [
    h("h2", null, `Decided otherwise than ${rule.name} says`),
    table(["Arrived", "Bottle", "Tool", "State", "What became of it"],
      rule.listed.map((row) => h("tr", null, cells(time(row.arrived), row.bottle_slug, row.tool, row.state, row.ended)))),
  ]);
  const state = told.problem
    ? h("p", { class: "tone-alarm" }, `No rule counts: ${told.problem}`)
    : h("p", { class: told.running ? "tone-good" : "tone-soon" },
        told.running ? "The rules are applied." : "The rules are not applied: 'bot-bottle policy run' is not at work.");
  return h("div", { class: "page" },
    h("h1", null, "Policies"),
    state,
    h("p", { class: "tone-quiet" }, `${told.path}, tried on what people decided of the newest proposals: ${told.decided} decisions.`),
    rules.length
      ? table(["Rule", "Verdict", "Matches", "Ends", "Would have applied to", "You decided otherwise"], rules)
      : none("There are no rules: everything is asked."),
    otherwise,
    told.suggestions.length ? h("h2", null, "Suggested by what was decided alike, and never otherwise") : null,
    told.suggestions.map((each) => [
      h("p", null, `${each.evidence} decisions; nothing is written, put it into the file if you agree:`),
      h("pre", { tabindex: "0" }, each.rule),
    ]),
  );
}
