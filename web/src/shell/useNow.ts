// The time as something to watch, once a second; still while the page is hidden.

import { onScopeDispose, ref, type Ref } from 'vue'

export function useNow(everyMs = 1000): Readonly<Ref<number>> {
  const now = ref(Date.now())
  const timer = window.setInterval(() => {
    if (!document.hidden) now.value = Date.now()
  }, everyMs)
  onScopeDispose(() => window.clearInterval(timer))
  return now
}
