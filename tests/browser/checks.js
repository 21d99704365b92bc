// What a page is asked inside the browser; inspection.py puts these together. Every function
// returns plain JSON. Defines the global `checks`.
(() => {
  const FOCUSABLE =
    "a[href], area[href], button, input, select, textarea, summary, iframe, [tabindex], [contenteditable]";

  // An element in words: its tag with id or classes, and the beginning of its text.
  const named = (element) => {
    const id = element.id ? `#${element.id}` : "";
    const classes = id ? "" : [...element.classList].map((one) => `.${one}`).join("");
    const text = (element.textContent ?? "").trim().replace(/\s+/g, " ").slice(0, 40);
    return `<${element.tagName.toLowerCase()}${id}${classes}> ${text}`.trim();
  };

  const shown = (element) =>
    element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;

  // What is drawn outside of the window or cut off by a box. On paper nothing scrolls: what a
  // scrolling box holds beyond its edge is cut off there.
  const overflow = (paper) => {
    const found = [];
    const root = document.scrollingElement;
    if (root.scrollWidth > root.clientWidth) {
      found.push(`the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth} px`);
    }
    const scrolls = (element) =>
      element !== document.body && ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    for (const element of document.body.querySelectorAll("*")) {
      if (element.closest("svg")?.contains(element) && element.tagName !== "svg") continue;
      if (!shown(element)) continue;
      const box = element.getBoundingClientRect();
      const way = getComputedStyle(element).overflowX;
      const more = element.scrollWidth - element.clientWidth;
      if (element.clientWidth > 1 && more > 1 && element.tagName !== "svg") {
        if (["hidden", "clip"].includes(way) || (paper && ["auto", "scroll"].includes(way))) {
          found.push(`cut off by ${more} px: ${named(element)}`);
        }
      }
      const outside = box.right > root.clientWidth + 0.5 || (box.left < -0.5 && box.right > 0);
      if (!outside || box.width <= 1) continue;
      let above = element.parentElement;
      while (above !== null && !scrolls(above)) above = above.parentElement;
      if (above === null) found.push(`beyond the window's edge: ${named(element)}`);
    }
    return found;
  };

  const headings = () => {
    const all = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")];
    const levels = all.map((one) => Number(one.tagName[1]));
    const found = all.filter((one) => !one.textContent.trim()).map((one) => `empty: ${named(one)}`);
    if (levels[0] !== 1) found.push("the first heading is no h1");
    if (levels.filter((one) => one === 1).length > 1) found.push("more than one h1");
    levels.forEach((level, i) => {
      if (i > 0 && level > levels[i - 1] + 1) found.push(`skips a level: ${named(all[i])}`);
    });
    return found;
  };

  // What runs, or would: a report has none of it.
  const scripts = () => {
    const found = [...document.querySelectorAll("script")].map(named);
    for (const element of document.querySelectorAll("*")) {
      for (const { name, value } of element.attributes) {
        if (name.startsWith("on") || /^\s*javascript:/i.test(value)) {
          found.push(`${name} of ${named(element)}`);
        }
      }
    }
    return found;
  };

  // Text in drawings: axe does not tell its contrast. Ours are drawn on the page's background.
  const drawn = () => {
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (colour) => {
      const [r, g, b] = numbers(colour).map((one) => {
        const part = one / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      for (let one = element; one !== null; one = one.parentElement) {
        const colour = getComputedStyle(one).backgroundColor;
        if (numbers(colour)[3] !== 0) return colour;
      }
      return "rgb(255, 255, 255)";
    };
    const found = [];
    for (const text of document.querySelectorAll("svg text")) {
      if (!shown(text)) continue;
      const style = getComputedStyle(text);
      const [low, high] = [light(style.fill), light(behind(text))].sort((a, b) => a - b);
      const contrast = (high + 0.05) / (low + 0.05);
      if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)}: ${named(text)}`);
    }
    for (const drawing of document.querySelectorAll("svg")) {
      if (!shown(drawing)) continue;
      const edge = drawing.getBoundingClientRect();
      const before = [];
      for (const text of drawing.querySelectorAll("text")) {
        if (!shown(text)) continue;
        if (/[$\\]\w*{|\\\w/.test(text.textContent)) found.push(`not set: ${named(text)}`);
        const box = text.getBoundingClientRect();
        if (box.left < edge.left - 1 || box.right > edge.right + 1) {
          found.push(`cut off by the drawing: ${named(text)}`);
        }
        const across = ({ box: other }) =>
          Math.min(box.right, other.right) - Math.max(box.left, other.left) > 2 &&
          Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top) > box.height / 2;
        const under = before.find(across);
        if (under) found.push(`${named(text)} is drawn over ${named(under.text)}`);
        before.push({ text, box });
      }
    }
    return found;
  };

  // --- keyboard ---------------------------------------------------------------------------------

  const look = (element) => {
    const style = getComputedStyle(element);
    const none = style.outlineStyle === "none" || parseFloat(style.outlineWidth) === 0;
    const outline = none ? "" : `${style.outlineStyle} ${style.outlineWidth} ${style.outlineColor}`;
    return [outline, style.boxShadow, style.backgroundColor, style.borderColor, style.color].join();
  };
  const stops = () =>
    [...document.querySelectorAll(FOCUSABLE)].filter(
      (one) => one.tabIndex >= 0 && !one.disabled && shown(one),
    );
  let unfocused = new Map();
  let opened = new Map();
  let visited = [];

  const begin = () => {
    document.body.tabIndex = -1; // Tab goes on from where the focus was last: from the beginning
    document.body.focus();
    document.body.removeAttribute("tabindex");
    unfocused = new Map([...document.querySelectorAll(FOCUSABLE)].map((one) => [one, look(one)]));
    opened = new Map([...document.querySelectorAll("details")].map((one) => [one, one.open]));
    visited = [];
  };

  // The element that has the focus now; null at the end of the page, or back at its beginning.
  const arrived = () => {
    const element = document.activeElement;
    if (element === null || element === document.body || element === visited[0]) return null;
    const again = visited.includes(element);
    visited.push(element);
    const box = element.getBoundingClientRect();
    return {
      name: named(element),
      again,
      seen: look(element) !== (unfocused.get(element) ?? ""),
      inside: box.bottom > 0 && box.top < window.innerHeight && box.width > 0,
      open: element.tagName === "SUMMARY" ? element.parentElement.open : null,
    };
  };
  const open = () => document.activeElement.parentElement.open;

  // What Tab left out or took out of order, at the end of the page.
  const passed = () => {
    const found = stops()
      .filter((one) => !visited.includes(one))
      .map((one) => `never reached by Tab: ${named(one)}`);
    visited.forEach((one, i) => {
      const before = i > 0 && one.compareDocumentPosition(visited[i - 1]);
      if (before & Node.DOCUMENT_POSITION_FOLLOWING) found.push(`out of order: ${named(one)}`);
    });
    opened.forEach((was, one) => (one.open = was)); // as it was found
    document.activeElement?.blur();
    return found;
  };

  globalThis.checks = { overflow, headings, scripts, drawn, begin, arrived, open, passed };
})();
