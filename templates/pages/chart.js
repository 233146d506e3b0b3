// Shows the values of a chart at the pointer or with the arrow keys, and zooms into a part that is dragged or selected.
// The table below the chart has the same values, with links.
"use strict"
{
  const MIN_LENGTH = 300_000 // ms
  const WITHOUT_VALUE = "–"
  let chart, index, anchor, isDragging = false

  const find = target => target.closest?.(".canvas")
  const number = name => +chart.dataset[name]

  // Index -> row of the table, for each point that has any run.
  function readRows() {
    const rows = new Map()
    for (const row of chart.closest(".card").querySelectorAll("tbody tr")) {
      const at = Date.parse(row.querySelector("time").dateTime)
      rows.set(Math.round((at - number("start")) / number("step")), row)
    }
    return rows
  }

  function findNearest(rows, wanted) {
    return [...rows.keys()].reduce((best, each) => Math.abs(each - wanted) < Math.abs(best - wanted) ? each : best, Infinity)
  }

  function describe(row) {
    const names = [...row.closest("table").querySelectorAll("thead th")].map(cell => cell.textContent)
    const cells = [...row.cells].map((cell, i) => i ? `${names[i]} ${cell.textContent}` : cell.textContent)
    return cells.filter((_, i) => !["", WITHOUT_VALUE].includes(row.cells[i].textContent)).join(" · ")
  }

  function show() {
    const [cursor, readout] = [chart.querySelector(".cursor"), chart.querySelector(".readout")]
    const row = readRows().get(index)
    cursor.hidden = readout.hidden = !row
    if (!row) return
    const count = number("count")
    const [from, to] = anchor === undefined ? [index + 0.5, index + 0.5] : [Math.min(anchor, index), Math.max(anchor, index) + 1]
    cursor.toggleAttribute("data-selection", anchor !== undefined)
    cursor.style.left = `${from / count * 100}%`
    cursor.style.width = `${(to - from) / count * 100}%`
    const place = (index + 0.5) / count * 100
    readout.style.left = `${place}%`
    readout.style.transform = `translateX(-${place}%)`
    if (readout.textContent !== describe(row)) readout.textContent = describe(row)
  }

  function clear() {
    if (!chart) return
    chart.querySelector(".cursor").hidden = chart.querySelector(".readout").hidden = true
    chart = index = anchor = undefined
    isDragging = false
  }

  function moveTo(target, wanted) {
    if (chart !== target) clear()
    chart = target
    index = findNearest(readRows(), wanted)
    show()
  }

  function zoom() {
    const [first, last] = [Math.min(anchor, index), Math.max(anchor, index)]
    const from = number("start") + first * number("step")
    const to = Math.min(number("start") + (last + 1) * number("step"), number("stop"))
    if (to - from < MIN_LENGTH) return clear()
    const parameters = new URLSearchParams(location.search)
    parameters.delete("range")
    parameters.set("from", from)
    parameters.set("to", to)
    location.assign(`?${parameters}#${chart.closest(".card").getAttribute("aria-labelledby")}`)
  }

  function indexAt(target, clientX) {
    const box = target.getBoundingClientRect()
    const share = Math.min(Math.max((clientX - box.left) / box.width, 0), 1)
    return share * target.dataset.count - 0.5
  }

  document.addEventListener("pointermove", event => {
    const target = isDragging ? chart : find(event.target)
    if (target) moveTo(target, indexAt(target, event.clientX))
    else if (chart !== document.activeElement) clear()
  })

  document.addEventListener("pointerdown", event => {
    const target = find(event.target)
    if (!target || event.button) return
    anchor = undefined
    moveTo(target, indexAt(target, event.clientX))
    anchor = index
    isDragging = true
  })

  document.addEventListener("pointerup", () => {
    if (!isDragging) return
    isDragging = false
    if (anchor !== index) return zoom()
    anchor = undefined
    show()
  })

  document.addEventListener("pointercancel", clear)
  document.addEventListener("focusout", event => { if (find(event.target)) clear() })

  document.addEventListener("keydown", event => {
    const target = find(event.target)
    if (!target || event.ctrlKey || event.metaKey || event.altKey) return
    if (event.key === "Escape") return clear()
    if (event.key === "Enter" && chart === target && anchor !== undefined) return zoom()
    if (chart !== target) clear()
    chart = target
    const indexes = [...readRows().keys()].sort((a, b) => a - b)
    const place = indexes.indexOf(index)
    const next = {
      ArrowLeft: place < 0 ? indexes.length - 1 : Math.max(place - 1, 0),
      ArrowRight: Math.min(place + 1, indexes.length - 1),
      Home: 0,
      End: indexes.length - 1,
    }[event.key]
    if (next === undefined || !indexes.length) return
    event.preventDefault()
    anchor = event.shiftKey ? anchor ?? index ?? indexes[next] : undefined
    index = indexes[next]
    show()
  })
}
