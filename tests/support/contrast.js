// WCAG 2's contrast of every text that is seen with what is behind it; gives those below 4.5.

function luminance(colour) {
  const [r, g, b] = colour
    .match(/[\d.]+/g)
    .map((value) => value / 255)
    .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function behind(element) {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!/, 0\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}

const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const bad = [];
while (texts.nextNode()) {
  const text = texts.currentNode.textContent.trim();
  const element = texts.currentNode.parentElement;
  if (!text || !element.checkVisibility()) continue;
  const [dark, light] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => a - b);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < 4.5) bad.push(`${text}: ${contrast.toFixed(2)}`);
}
return bad;
