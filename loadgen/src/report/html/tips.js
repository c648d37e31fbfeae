const tip = document.getElementById("tip");
const texts = new Map();
for (const title of document.querySelectorAll(".tips title")) {
  texts.set(title.parentNode, title.textContent);
  title.parentNode.setAttribute("aria-label", title.textContent);
  title.remove();
}
let last = null;
function show(event) {
  const text = texts.get(event.target);
  if (last) last.classList.remove("on");
  last = text === undefined ? null : event.target;
  tip.hidden = !last;
  if (!last) return;
  last.classList.add("on");
  tip.textContent = text;
  const left = event.clientX + 16 + tip.offsetWidth > innerWidth ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16;
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 4)) + "px";
}
for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, show);
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
