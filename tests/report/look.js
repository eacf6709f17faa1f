// Tells what a reader of the page would stumble over: texts that are outside of the window, cut off,
// on top of each other, too faint, or broken within a word; and whether tables say that they scroll.
function seen(node) {
  const style = getComputedStyle(node)
  return style.visibility === 'visible' && !node.closest('details:not([open]) > :not(summary)')
}
function luminance(colour) {
  const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map(
    v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}
function paper(node) {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor
    if (colour !== 'rgba(0, 0, 0, 0)') return colour
  }
}
function breaks(node, text) {
  // places within a word where one line ends and the next begins
  const range = document.createRange(), found = []
  let before = null
  for (let i = 0; i < text.length; i++) {
    range.setStart(node, i); range.setEnd(node, i + 1)
    const rect = range.getBoundingClientRect()
    const ends = before !== null && rect.width && rect.top > before + 4
    if (ends && !/[\s\-–/]/.test(text[i - 1])) found.push(text)
    if (rect.width) before = rect.top
  }
  return found
}
onload = () => {
  const width = document.documentElement.clientWidth
  const texts = [], outside = [], cut = [], faint = [], broken = []
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node; (node = walk.nextNode());) {
    const text = node.textContent, parent = node.parentElement
    if (!text.trim() || parent.closest('script, style') || !seen(parent)) continue
    const range = document.createRange()
    range.selectNodeContents(node)
    const rects = [...range.getClientRects()].filter(r => r.width > 1 && r.height > 1)
    if (!rects.length) continue
    const scroll = parent.closest('.scroll')
    const box = parent.closest('.phases li')
    for (const rect of rects) {
      const edge = box && box.getBoundingClientRect()
      if (box && rect.top >= edge.bottom) continue
      if (box && (rect.right > edge.right + 1 || rect.bottom > edge.bottom + 1)) cut.push(text)
      const frame = (scroll || document.body).getBoundingClientRect()
      if (frame.left < -1 || frame.right > width + 1) outside.push(text)
      if (!scroll && (rect.left < -1 || rect.right > width + 1)) outside.push(text)
      const slack = rect.height * 0.2
      texts.push({node, text, left: rect.left + 1, right: rect.right - 1,
        top: rect.top + slack, bottom: rect.bottom - slack, scroll})
    }
    const [a, b] = [luminance(getComputedStyle(parent).color), luminance(paper(parent))]
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) faint.push(text)
    if (!parent.closest('.code')) broken.push(...breaks(node, text))
  }
  const overlaps = []
  texts.forEach((a, i) => texts.slice(i + 1).forEach(b => {
    if (a.node !== b.node && a.left < b.right && b.left < a.right
        && a.top < b.bottom && b.top < a.bottom) overlaps.push([a.text, b.text])
  }))
  const measured = {
    name: location.hash.slice(1), width, needed: document.documentElement.scrollWidth,
    stages: document.querySelectorAll('.stage').length,
    data: JSON.parse(document.getElementById('report').textContent).schema,
    texts: texts.length, outside, cut, faint, broken, overlaps,
  }
  // an animation that follows a scroller begins with a frame that is drawn
  requestAnimationFrame(() => requestAnimationFrame(() => {
    measured.frames = [...document.querySelectorAll('.frame')].map(frame => {
      const scroll = frame.querySelector('.scroll'), more = frame.querySelector('.more')
      return {scrolls: scroll.scrollWidth > scroll.clientWidth,
        says: getComputedStyle(more).visibility === 'visible' && more.offsetHeight > 0}
    })
    fetch('found', {method: 'POST', body: JSON.stringify(measured)})
  }))
}
