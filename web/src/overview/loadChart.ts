// The chart library comes in a file of its own, after the figures: fetched when the page has nothing else to do, so that it
// is there even if the server is not when the Overview is first opened.

import type { Component } from 'vue'

export const loadChart = (): Promise<Component> => import('./TimeChart.vue')

/** Fetches the chart early; a failure is left to the panel that needs it. */
export function prefetchChart(): void {
  const later = 'requestIdleCallback' in window ? window.requestIdleCallback : (run: () => void) => window.setTimeout(run, 500)
  later(() => void loadChart().catch(() => undefined))
}
