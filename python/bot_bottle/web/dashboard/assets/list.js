// How is a list of ten thousand lines shown? Only the lines in view are elements; the others are empty space.

const OVERSCAN = 12;
const HIDDEN = 20; // a hidden list creates this many lines, so that they are there when it is shown

// box: the element that scrolls. height(line): in rem. make(line): its element, asked for each time it is drawn.
export function virtual(box, height, make) {
  const canvas = document.createElement("div");
  canvas.className = "canvas";
  canvas.setAttribute("role", "presentation");
  box.append(canvas);
  let lines = [];
  let tops = [];
  let total = 0;
  let asked = false;

  const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize);

  function firstAt(y) {
    let low = 0;
    let high = lines.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tops[middle] + height(lines[middle]) <= y) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function paint() {
    asked = false;
    const unit = rem();
    const seen = box.clientHeight / unit;
    const top = box.scrollTop / unit;
    const first = Math.max(0, firstAt(top) - OVERSCAN);
    const last = seen ? Math.min(lines.length, firstAt(top + seen) + OVERSCAN) : Math.min(lines.length, first + HIDDEN);
    const made = [];
    for (let at = first; at < last; at += 1) {
      const element = make(lines[at], at);
      element.style.top = `${tops[at]}rem`;
      made.push(element);
    }
    // An element that stays is not removed, so it keeps its focus and no screen reader reads it again.
    const wanted = new Set(made);
    for (const child of [...canvas.children]) if (!wanted.has(child)) child.remove();
    made.forEach((element, at) => {
      if (canvas.children[at] !== element) canvas.insertBefore(element, canvas.children[at] ?? null);
    });
  }

  const later = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(paint);
  };

  box.addEventListener("scroll", later, { passive: true });
  new ResizeObserver(later).observe(box);

  return {
    set(given) {
      lines = given;
      tops = [];
      total = 0;
      for (const line of lines) {
        tops.push(total);
        total += height(line);
      }
      canvas.style.height = `${total}rem`;
      paint();
    },
    later,
    // Brings the line at this place into view, with the line above it.
    reveal(at) {
      if (at < 0 || !box.clientHeight) return;
      const unit = rem();
      const from = tops[Math.max(0, at - 1)] * unit;
      const to = (tops[at] + height(lines[at])) * unit;
      if (from < box.scrollTop) box.scrollTop = from;
      else if (to > box.scrollTop + box.clientHeight) box.scrollTop = to - box.clientHeight;
      later();
    },
    // Keeps what is in view where it is while lines above come and go: by how much did the line move?
    shift(by) {
      box.scrollTop += by * rem();
    },
    top: (at) => tops[at],
    inView() {
      const unit = rem();
      const from = firstAt(box.scrollTop / unit);
      return lines.slice(from, firstAt((box.scrollTop + box.clientHeight) / unit) + 1);
    },
  };
}
