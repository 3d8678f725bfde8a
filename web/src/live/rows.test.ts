import { describe, expect, it } from 'vitest'
import type { EventJson } from '../api/types'
import { event, orders, post, pre } from '../test/event'
import { durationOf, type Row, RowLog, RUNNING_MAX_MS } from './rows'

const NOW = 10_000

/** The rows, newest first, as short texts: `call START-END status duration` or the event's type. */
function shown(log: RowLog, options = { endsHidden: false }, now = NOW): string[] {
  return Array.from({ length: log.length }, (_, i) => text(log, log.at(i)!, options, now))
}

function text(log: RowLog, row: Row, options: { endsHidden: boolean }, now: number): string {
  if (row.kind === 'event') return row.event.type
  return `${row.start?.ts_ms ?? '?'}-${row.end?.ts_ms ?? '?'} ${log.status(row, now, options)} ${durationOf(row) ?? ''}`.trim()
}

function check(events: EventJson[], expected: string[]): void {
  for (const order of orders(events)) {
    const log = new RowLog(1000)
    for (const one of order) log.add([one])
    expect(shown(log), order.map((one) => `${one.type}@${one.ts_ms}`).join(' ')).toEqual(expected)
  }
}

describe('pairing by id', () => {
  it('makes one row of Pre and Post, in any order of arrival', () => {
    check([pre(1, 'a'), post(5, 'a', 3)], ['1-5 succeeded 3'])
  })

  it('takes Post minus Pre where the client tells no duration', () => {
    check([pre(1, 'a'), post(5, 'a')], ['1-5 succeeded 4'])
  })

  it('keeps parallel calls apart whose results cross', () => {
    check([pre(1, 'a'), pre(2, 'b'), post(3, 'b', 1), post(4, 'a', 3)], ['2-3 succeeded 1', '1-4 succeeded 3'])
  })

  it('keeps agents apart that use the same id', () => {
    check([pre(1, 'a'), pre(2, 'a', { agent_id: 'x' }), post(3, 'a', 1, { agent_id: 'x' })], ['2-3 succeeded 1', '1-? running'])
  })

  it('shows the failure of a call', () => {
    check([pre(1, 'a'), post(5, 'a', 3, { type: 'PostToolUseFailure' })], ['1-5 failed 3'])
  })

  it('shows an end whose start was never seen', () => {
    check([post(5, 'a', 3)], ['?-5 succeeded 3'])
  })

  it('skips an event that is known', () => {
    const log = new RowLog(10)
    expect(log.add([pre(1, 'a')])).toBe(1)
    expect(log.add([pre(1, 'a')])).toBe(0)
    expect(log.length).toBe(1)
  })

  it('shows a second Post of one call instead of hiding it', () => {
    check([pre(1, 'a'), post(5, 'a', 3), post(6, 'a', 3)].slice(0, 2), ['1-5 succeeded 3'])
    const log = new RowLog(10)
    log.add([pre(1, 'a'), post(5, 'a', 3), post(6, 'a', 3)])
    expect(shown(log)).toEqual(['?-6 succeeded 3', '1-5 succeeded 3'])
  })
})

describe('calls without an end', () => {
  it('are running at first', () => check([pre(1, 'a')], ['1-? running']))

  it('are denied by a PermissionDenied that names them', () => {
    const log = new RowLog(10)
    log.add([pre(1, 'a'), event(2, { type: 'PermissionDenied', tool_use_id: 'a', tool_name: 'Bash' })])
    expect(shown(log)).toEqual(['PermissionDenied', '1-? denied'])
  })

  it('have ended when the batch of their agent has', () => {
    check([pre(1, 'a'), event(3, { type: 'PostToolBatch' })], ['PostToolBatch', '1-? ended'])
  })

  it('are not ended by the batch before them, nor by that of another agent', () => {
    check([event(1, { type: 'PostToolBatch' }), pre(2, 'a'), event(3, { type: 'PostToolBatch', agent_id: 'x' })], ['PostToolBatch', '2-? running', 'PostToolBatch'])
  })

  it('are abandoned when their session ends, subagents included', () => {
    check([pre(1, 'a', { agent_id: 'x' }), event(3, { type: 'SessionEnd' })], ['SessionEnd', '1-? abandoned'])
  })

  it('are unknown where the filter can hide the end, or after hours', () => {
    const log = new RowLog(10)
    log.add([pre(1, 'a')])
    expect(shown(log, { endsHidden: true })).toEqual(['1-? unknown'])
    expect(shown(log, { endsHidden: false }, RUNNING_MAX_MS + 2)).toEqual(['1-? unknown'])
  })
})

describe('old payloads without an id', () => {
  it('pair by order within session and tool', () => {
    const log = new RowLog(100)
    log.add([pre(1, null), post(2, null, 1), pre(3, null), post(4, null, 1)])
    expect(shown(log)).toEqual(['3-4 succeeded 1', '1-2 succeeded 1'])
  })

  it('prefer the half with the same summary when calls run in parallel', () => {
    const log = new RowLog(100)
    log.add([pre(1, null, { summary: 'ls' }), pre(2, null, { summary: 'pwd' }), post(3, null, 1, { summary: 'pwd' }), post(4, null, 3, { summary: 'ls' })])
    expect(shown(log)).toEqual(['2-3 succeeded 1', '1-4 succeeded 3'])
  })

  it('do not pair over another tool or session', () => {
    const log = new RowLog(100)
    log.add([pre(1, null), post(2, null, 1, { tool_name: 'Read' }), post(3, null, 1, { session_id: 's2' })])
    expect(shown(log)).toEqual(['?-3 succeeded 1', '?-2 succeeded 1', '1-? running'])
  })

  it('do not pair with a start that a Stop has closed', () => {
    const log = new RowLog(100)
    log.add([pre(1, null), event(2, { type: 'Stop' }), post(3, null, 1)])
    expect(shown(log)).toEqual(['?-3 succeeded 1', 'Stop', '1-? abandoned'])
  })

  it('pair when history brings the start after the end', () => {
    const log = new RowLog(100)
    log.add([post(4, null, 2)])
    log.add([pre(2, null)])
    expect(shown(log)).toEqual(['2-4 succeeded 2'])
  })
})

describe('bounds', () => {
  it('drops the oldest events over the capacity, and forgets what belonged to them', () => {
    const log = new RowLog(100)
    for (let ms = 1; ms <= 1000; ms += 1) {
      log.add([ms % 2 === 1 ? pre(ms, `c${(ms - 1) / 2}`) : post(ms, `c${ms / 2 - 1}`, 1)])
      log.trim()
    }
    expect(log.eventCount).toBeLessThanOrEqual(100)
    expect(log.length).toBe(50)
    expect(shown(log)[0]).toBe('999-1000 succeeded 1')
    expect(log.has(1 * 4096)).toBe(false)
    expect(log.wants(post(2, 'c0'))).toBe(false)
  })

  it('takes 100,000 events in a few seconds, oldest page last', () => {
    const log = new RowLog(100_000)
    const started = performance.now()
    for (let page = 499; page >= 0; page -= 1) {
      log.add(Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? pre(page * 100 + i, `c${page}-${i}`) : post(page * 100 + i, `c${page}-${i - 1}`, 1))))
    }
    for (let ms = 50_000; ms < 100_000; ms += 1) log.add([event(ms)])
    expect(log.eventCount).toBe(100_000)
    expect(log.length).toBe(75_000)
    expect(performance.now() - started).toBeLessThan(20_000)
  }, 30_000)

  it('finds a row by its key after others came in above and below', () => {
    const log = new RowLog(100)
    log.add([event(50)])
    const key = log.at(0)!.key
    log.add([event(60), event(40)])
    expect(log.indexOf(key)).toBe(1)
    expect(log.indexOf('none')).toBe(-1)
  })
})
