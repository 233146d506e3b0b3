// Keeps a page current without reloading it: on each event of the stream, and at an interval, the page fetches itself
// and takes over what differs. What a person does meanwhile stays: focus, scroll position, opened details, forms.
"use strict"
{
  const script = document.currentScript
  const eventsUrl = script.dataset.events
  const interval = script.dataset.intervalS * 1000
  const [DEBOUNCE, JITTER, LONGEST_GAP, LONGEST_RETRY, TIMEOUT, LATE] = [150, 250, 15_000, 60_000, 20_000, 5_000] // ms
  const KEYED = ["tr", "li"]
  const state = document.getElementById("live")
  let source, imminent, later, stopped, failures = 0, isRunning = false, isWanted = false, finishedAt = 0, gap = 0
  let clockOffset = document.body.dataset.now - Date.now()

  const show = text => { if (state.textContent !== text) state.textContent = text }

  function stop() {
    stopped = true
    source?.close()
    clearTimeout(imminent)
    clearTimeout(later)
    const link = Object.assign(document.createElement("a"), { href: location.href, textContent: "Not live: reload" })
    link.onclick = () => location.reload()
    state.replaceChildren(link)
  }

  // --- the stream

  function connect() {
    source?.close()
    if (stopped || document.hidden) return
    if (!eventsUrl) return refreshSoon()
    source = new EventSource(eventsUrl)
    source.onopen = refreshSoon // what happened before is not in the stream
    source.onmessage = refreshSoon
    source.addEventListener("reset", refreshSoon)
    source.onerror = () => {
      show("Reconnecting")
      if (source.readyState === EventSource.CLOSED) refreshSoon() // it was refused: the page shows whether for good
    }
  }

  // --- the page

  function refreshSoon() {
    isWanted = true
    if (stopped || isRunning || imminent || document.hidden) return
    imminent = setTimeout(refresh, Math.max(DEBOUNCE + JITTER * Math.random(), finishedAt + gap - Date.now()))
  }

  async function refresh() {
    clearTimeout(later)
    imminent = undefined
    const sinceLast = Date.now() - finishedAt
    gap = sinceLast < gap + 2000 ? Math.min(gap * 2 || 1000, LONGEST_GAP) : 0 // events follow one another: a storm
    isWanted = false
    isRunning = true
    try {
      await fetchPage()
      failures = 0
    } catch {
      failures += 1
      show("Reconnecting")
    }
    isRunning = false
    finishedAt = Date.now()
    if (stopped) return
    if (isWanted) return refreshSoon()
    const isBroken = failures || (source && source.readyState === EventSource.CLOSED)
    const retry = Math.min(2000 * 2 ** Math.min(failures, 5), LONGEST_RETRY)
    later = setTimeout(isBroken && eventsUrl ? connect : refreshSoon, failures ? retry : interval)
  }

  async function fetchPage() {
    const response = await fetch(location.pathname + location.search, { cache: "no-cache", signal: AbortSignal.timeout(TIMEOUT) })
    if ([401, 403, 404].includes(response.status)) return stop()
    if (!response.ok) throw new Error(response.statusText)
    const page = new DOMParser().parseFromString(await response.text(), "text/html")
    const newScript = page.querySelector("script[data-interval-s]")
    if (newScript?.getAttribute("src") !== script.getAttribute("src")) return stop() // of another version
    showLocalTimes(page.body)
    const focused = document.activeElement
    update(document.body, page.body)
    document.title = page.title
    clockOffset = page.body.dataset.now - Date.now()
    tick()
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true })
    if (!source || source.readyState === EventSource.OPEN) show("Live")
  }

  // --- taking over what differs

  function update(old, next) {
    if (old.dataset?.scripted !== undefined || old.isEqualNode(next) || isInUse(old)) return
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = next.nodeValue
      return
    }
    const isOfVisitor = name => name === "open" && old.localName === "details"
    for (const { name, value } of next.attributes) {
      if (!isOfVisitor(name) && old.getAttribute(name) !== value) old.setAttribute(name, value)
    }
    for (const { name } of [...old.attributes]) {
      if (!isOfVisitor(name) && !next.hasAttribute(name)) old.removeAttribute(name)
    }
    updateChildren(old, next)
  }

  function updateChildren(old, next) {
    const keys = new Set([...next.childNodes].map(key))
    for (const child of [...old.childNodes]) if (!keys.has(key(child))) remove(child)
    let place = old.firstChild
    for (const child of [...next.childNodes]) {
      let match = place
      while (match && !(match.nodeName === child.nodeName && key(match) === key(child))) match = match.nextSibling
      if (!match) {
        old.insertBefore(child, place)
      } else {
        if (match === place) place = place.nextSibling
        else old.insertBefore(match, place)
        update(match, child)
      }
    }
    while (place) {
      const after = place.nextSibling
      remove(place)
      place = after
    }
  }

  function key(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return ""
    const id = node.getAttribute("id") ?? "" // `node.id` of a form is its field of that name
    if (id || !KEYED.includes(node.localName)) return id
    const named = node.querySelector("a[href], form[action]")
    return named ? named.getAttribute("href") ?? named.getAttribute("action") : ""
  }

  function remove(node) {
    const isElement = node.nodeType === Node.ELEMENT_NODE
    if (!(isElement && [node, ...node.querySelectorAll("form")].some(isInUse))) node.remove()
  }

  // A form that someone fills in, or is about to send, stays as it is: its button must not become another one.
  function isInUse(node) {
    if (node.localName !== "form") return false
    return node.matches(":hover, :focus-within") || [...node.elements].some(isEdited)
  }

  function isEdited(field) {
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked
    if (field.localName !== "select") return "defaultValue" in field && field.value !== field.defaultValue
    const initial = [...field.options].findIndex(option => option.defaultSelected)
    return field.selectedIndex !== Math.max(initial, 0)
  }

  // --- times that go on

  function tick() {
    const now = Date.now() + clockOffset
    for (const element of document.querySelectorAll("time[data-age]")) {
      const text = describe(element.dataset, Date.parse(element.dateTime) - now)
      if (element.textContent !== text) element.textContent = text
    }
  }

  function describe({ age, run }, ahead) {
    if (age === "for") return duration(-ahead, true)
    if (age === "ago") return ahead > -1000 ? "just now" : `${duration(-ahead, true)} ago`
    const isLate = ahead < -LATE
    if (ahead <= 0) return run ? `${run} ${isLate ? "is late" : "now"}` : isLate ? "late" : "now"
    return run ? `${run} in ${duration(ahead, true)}` : duration(ahead, false)
  }

  function duration(ms, isRounded) {
    const seconds = Math.max(Math.floor(ms / 1000), 1)
    const [minutes, hours, days] = [60, 3600, 86_400].map(unit => Math.floor(seconds / unit))
    let parts = [[days, "days"], [isRounded || days >= 10 ? 0 : hours % 24, "h"]]
    if (hours < 48) parts = [[hours, "h"], [minutes % 60, "min"]]
    if (!hours) parts = [[minutes, "min"], [isRounded || minutes >= 10 ? 0 : seconds % 60, "s"]]
    if (!minutes) parts = [[seconds, "s"]]
    return parts.filter(([count]) => count).map(([count, unit]) => `${count}\u00a0${unit}`).join(" ")
  }

  document.addEventListener("visibilitychange", connect)
  addEventListener("pageshow", event => { if (event.persisted) connect() })
  addEventListener("pagehide", () => source?.close())
  setInterval(tick, 1000)
  show(eventsUrl ? "Connecting" : "Live")
  connect()
}
