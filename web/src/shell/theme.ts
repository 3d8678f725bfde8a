// The theme: light, dark, or what the system says. The key is shared with public/theme.js, which applies it before paint.

import { ref, watch } from 'vue'

export const THEMES = ['system', 'light', 'dark'] as const
export type Theme = (typeof THEMES)[number]

const KEY = 'taffrail.theme'

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY)
    return value === 'light' || value === 'dark' ? value : 'system'
  } catch {
    return 'system'
  }
}

export const theme = ref<Theme>(stored())

/** Whether dark is shown now; charts redraw when it changes. */
export const isDark = ref(false)

const systemDark = typeof window !== 'undefined' && 'matchMedia' in window ? window.matchMedia('(prefers-color-scheme: dark)') : null

function apply(): void {
  const root = document.documentElement
  if (theme.value === 'system') delete root.dataset.theme
  else root.dataset.theme = theme.value
  isDark.value = theme.value === 'dark' || (theme.value === 'system' && (systemDark?.matches ?? false))
}

watch(theme, (next) => {
  apply()
  try {
    if (next === 'system') localStorage.removeItem(KEY)
    else localStorage.setItem(KEY, next)
  } catch {
    // Storage can be forbidden; the choice then lasts as long as the page.
  }
})
systemDark?.addEventListener('change', apply)
apply()
