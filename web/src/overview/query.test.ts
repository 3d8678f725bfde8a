import { expect, it } from 'vitest'
import { overviewFromQuery, overviewToQuery, WINDOWS } from './query'
import { column, sparkPath } from './series'

it('keeps window, app and session through the URL', () => {
  for (const window of WINDOWS) {
    const query = { window, app: 'a&b', session: '' }
    expect(overviewFromQuery(overviewToQuery(query))).toEqual(query)
  }
})

it('is bare by default and survives nonsense', () => {
  expect(overviewToQuery(overviewFromQuery({}))).toEqual({})
  expect(overviewFromQuery({ window: '2y', app: null })).toEqual({ window: '1h', app: '', session: '' })
})

it('breaks the sparkline where nothing was measured', () => {
  expect(sparkPath([0, null, 2], 10, 10)).toBe('M0 10M10 0')
  expect(sparkPath([1, 2], 10, 10)).toBe('M0 5L10 0')
})

it('keeps null in a column', () => {
  const step = { t_ms: 0, events: 1, calls: 0, failed: 0, execution_ms_avg: null, execution_ms_p95: null, file_operations: 0 }
  expect(column([step, { ...step, execution_ms_p95: 4 }], 'execution_ms_p95')).toEqual([null, 4])
})
