import { expect, it } from 'vitest'
import type { CostRowJson } from '../api/types'
import { BARS_MAX, costBars } from './costBars'

function row(app: string | null, cost_usd: number | null, unpriced = 0): CostRowJson {
  const confidence = { exact: cost_usd === null ? 0 : 1, repaired: 0, lower_bound: 0, estimated: 0, unpriced }
  return { app, cost_usd, confidence, cost_by_confidence: { exact: cost_usd ?? 0, repaired: 0, lower_bound: 0, estimated: 0 }, requests: 1, total_tokens: 5, input_tokens: 5, output_tokens: 0, cache_read_tokens: 0, cache_write_5m_tokens: 0, cache_write_1h_tokens: 0, web_searches: 0, first_ms: null, last_ms: null }
}

it('measures bars by the dearest and marks what has no price', () => {
  const { bars, more } = costBars([row('a', 4), row(null, 1, 2), row('c', null, 1)], 'app')
  expect(bars.map((bar) => [bar.name, bar.percent, bar.unpriced])).toEqual([['a', 100, false], ['Not told', 25, true], ['c', 0, true]])
  expect(more).toBe(0)
})

it('counts what it does not show, and stands without any cost', () => {
  expect(costBars(Array.from({ length: BARS_MAX + 3 }, (_, i) => row(`a${i}`, 0)), 'app')).toMatchObject({ more: 3 })
  expect(costBars([], 'model')).toEqual({ bars: [], more: 0 })
})
