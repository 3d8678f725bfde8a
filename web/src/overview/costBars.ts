// Rows of cost as bars: the dearest first as the server sorts them, each as wide as its share of the dearest.

import type { CostRowJson } from '../api/types'
import { texts } from '../texts'

/** Rows of a table; the rest is counted. */
export const BARS_MAX = 12

export interface CostBar {
  readonly name: string
  readonly cost: number | null
  readonly requests: number
  readonly tokens: number
  /** Width, 0 to 100. */
  readonly percent: number
  /** Whether requests in it have no price. */
  readonly unpriced: boolean
}

export function costBars(rows: readonly CostRowJson[], by: 'model' | 'app'): { bars: CostBar[]; more: number } {
  const most = Math.max(0, ...rows.map((row) => row.cost_usd ?? 0))
  const bars = rows.slice(0, BARS_MAX).map((row) => ({
    name: row[by] ?? texts.overview.breakdown.unknown,
    cost: row.cost_usd,
    requests: row.requests,
    tokens: row.total_tokens,
    percent: most > 0 ? (Math.max(0, row.cost_usd ?? 0) / most) * 100 : 0,
    unpriced: row.confidence.unpriced > 0,
  }))
  return { bars, more: Math.max(0, rows.length - BARS_MAX) }
}
