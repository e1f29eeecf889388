// Small helpers for the page's elements.

export const $ = (id) => document.getElementById(id);

// properties: of the element, except for those that begin with aria-, data- or role, which are attributes
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(aria-|data-|role|for$)/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

export function button(text, listener, properties = {}) {
  const made = make("button", { type: "button", textContent: text, ...properties });
  made.addEventListener("click", listener);
  return made;
}

export function percent(share, places = 1) {
  // only a share of 1 is 100 %
  const most = share < 1 ? 100 - 10 ** -places : 100;
  const number = Math.min(share * 100, most).toFixed(places).replace(/^100\.0+$/, "100");
  // a no-break space keeps the sign with its number
  return `${number}\u00a0%`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

// write text to the clipboard, and say on the button how it went. source: the element that shows the text
export async function copy(pressed, text, source) {
  const label = (pressed.dataset.label ??= pressed.textContent);
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
  } catch {
    // without HTTPS or permission there is no clipboard, so select the text for copying with the keyboard
    if (source) getSelection().selectAllChildren(source);
    pressed.textContent = source ? "Selected" : "Not allowed";
  }
  setTimeout(() => (pressed.textContent = label), 1500);
}
