// Copies the text of an element: `data-copies` of a button names it. The stylesheet hides these buttons until this
// script has run, and live.js leaves the state of a copy as it is.
"use strict"
{
  const STATE_SHOWN_FOR = 4000 // ms
  let hiding

  function announce(text) {
    const state = document.getElementById("copied")
    if (!state) return
    state.textContent = ""
    requestAnimationFrame(() => { state.textContent = text }) // so that a second "Copied" is announced as well
    clearTimeout(hiding)
    hiding = setTimeout(() => { state.textContent = "" }, STATE_SHOWN_FOR)
  }

  // Pages over plain HTTP have no clipboard: then the text is selected, and copied by the old command if there is one.
  function copySelected(element) {
    getSelection().selectAllChildren(element)
    return document.execCommand("copy")
  }

  async function copy(element) {
    const isCopied = await navigator.clipboard?.writeText(element.textContent).then(() => true, () => false)
    announce(isCopied || copySelected(element) ? "Copied" : "Selected: copy it with the keyboard")
  }

  document.addEventListener("click", event => {
    const button = event.target.closest("[data-copies]")
    if (button) copy(document.getElementById(button.dataset.copies))
  })
  document.documentElement.dataset.canCopy = ""
}
