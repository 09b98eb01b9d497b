// Who else looks at what is selected here? The page says what it shows, and hears what the others do.

import { PAGE, post } from "./api.js";

let all = [];
let selected = null;
let said = null;
let tell = () => {};

function told() {
  const names = all.filter((each) => each.id === selected && each.viewer !== PAGE).map((each) => each.name);
  tell([...new Set(names)]);
}

function say() {
  const mine = document.hidden ? null : selected;
  if (mine === said) return;
  said = mine;
  post("looking", { page: PAGE, proposal_id: mine }).catch(() => {});
}

document.addEventListener("visibilitychange", say);

// What the host says of everybody. It knows nothing of this page yet if it was started meanwhile.
export function looks(given) {
  all = given;
  if (said && !all.some((each) => each.viewer === PAGE)) {
    said = null;
    say();
  }
  told();
}

// From now on `teller` is called with the names of those who look at `id` too.
export function looking(teller, id) {
  tell = teller;
  selected = id;
  told();
  say();
}
