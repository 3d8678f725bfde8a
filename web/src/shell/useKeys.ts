// Single keys of the page. They rest while a person types, while a modifier is held, and while a dialog is open.

import { onMounted, onUnmounted } from 'vue'

export type KeyMap = Readonly<Record<string, (event: KeyboardEvent) => void>>

export function useKeys(keys: KeyMap): void {
  function onKey(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return
    if (isTyping(event.target) || document.querySelector('dialog[open]') !== null) return
    keys[event.key]?.(event)
  }
  onMounted(() => document.addEventListener('keydown', onKey))
  onUnmounted(() => document.removeEventListener('keydown', onKey))
}

export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false
  return target.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName)
}
