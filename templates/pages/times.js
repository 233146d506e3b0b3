// Shows times in the visitor's time zone. On hover it shows UTC, and the time in the zone of the schedule that a time
// belongs to. Without this script times are in UTC, as labels state.
"use strict"
{
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions()
  const withZone = new Intl.DateTimeFormat("en", { timeZoneName: "short" })

  const pad = number => String(number).padStart(2, "0")
  const clock = (at, hasSeconds) => [at.getHours(), at.getMinutes(), at.getSeconds()].slice(0, hasSeconds ? 3 : 2).map(pad).join(":")
  const date = (at, year) => `${at.getDate()}\u00a0${MONTHS[at.getMonth()]}` + (at.getFullYear() === year ? "" : ` ${at.getFullYear()}`)
  const zone = at => withZone.formatToParts(at).find(part => part.type === "timeZoneName").value
  const instant = element => new Date(element.getAttribute("datetime") ?? +element.dataset.at)

  function describe(at, style, now) {
    const hasSeconds = style.endsWith("-seconds")
    const isToday = at.toDateString() === now.toDateString()
    if (style === "date" || (style === "time-or-date" && !isToday)) return date(at, now.getFullYear())
    if (style.startsWith("time") || isToday) return clock(at, hasSeconds)
    return `${date(at, now.getFullYear())} ${clock(at, hasSeconds)}`
  }

  function setTitle(element, text) {
    if (!(element instanceof SVGElement)) return void (element.title = text)
    element.append(Object.assign(document.createElementNS(element.namespaceURI, "title"), { textContent: text }))
  }

  function describeInUtc(at) {
    const [, day, month, year, time] = at.toUTCString().split(" ")
    return `${+day}\u00a0${month} ${year} ${time} UTC`
  }

  // The time in the zone of its schedule comes from the server, which knows each zone.
  const describeOnHover = (element, ...texts) => [element.dataset.inScheduleZone, ...texts].filter(Boolean).join(" · ")

  // `body`: of this page, or of one that is to be taken over.
  globalThis.showLocalTimes = body => {
    const now = new Date(+body.dataset.now)
    for (const element of body.querySelectorAll("[data-as]")) {
      const at = instant(element)
      element.textContent = describe(at, element.dataset.as, now) + ("zone" in element.dataset ? ` ${zone(at)}` : "")
      setTitle(element, describeOnHover(element, describeInUtc(at)))
    }
    for (const element of body.querySelectorAll("time[data-age]")) {
      const at = instant(element)
      element.title = describeOnHover(element, `${date(at)} ${clock(at, true)} ${zone(at)}`, describeInUtc(at))
    }
    for (const element of body.querySelectorAll("[data-zone-name]")) {
      element.textContent = timeZone?.replaceAll("_", " ") ?? "in your time zone"
    }
    for (const element of body.querySelectorAll("[data-zone-value]")) element.value = timeZone ?? "UTC"
  }

  showLocalTimes(document.body)
}
